"""What ``python -m pytest_nixos cache`` says and does, over a real cache in a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos.cli.main import main
from pytest_nixos.machine.snapshot.record import (
    MEMORY,
    STATE,
    GuestAtRest,
    SnapshotRecord,
    snapshot_key,
)
from pytest_nixos.machine.snapshot.sealed_file import SealedFile
from pytest_nixos.machine.snapshot.store import SnapshotStore


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SnapshotStore:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return SnapshotStore.of_user()


def save(store: SnapshotStore, host: str) -> str:
    key = snapshot_key({"host": host})
    with store.draft() as draft:
        (draft / MEMORY).write_bytes(b"m" * 4096)
        (draft / STATE).write_bytes(b"s")
        record = SnapshotRecord(
            key=key,
            host=host,
            parts={},
            argv=("qemu",),
            cwd="@RUN@",
            memory_mib=512,
            saved_at_s=0.0,
            boot_s=31.4,
            guest=GuestAtRest(),
            console=(),
            files=tuple(SealedFile.seal(draft, name) for name in (MEMORY, STATE)),
        )
        assert store.commit(draft, record)
    return key[:12]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["cache", *arguments]) == 0
    return capsys.readouterr().out


def test_snapshots_are_listed(cache: SnapshotStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert "0 snapshots, 0 MiB" in run(capsys)
    key = save(cache, "web")
    out = run(capsys, "list")
    assert "1 snapshots" in out
    assert f"{key}  web  " in out
    assert "512 MiB of memory" in out
    assert "booted in 31 s  used 0.0 h ago" in out


def test_verify_removes_what_has_changed(
    cache: SnapshotStore, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, changed = save(cache, "whole"), save(cache, "changed")
    (cache.path(snapshot_key({"host": "changed"})) / STATE).write_bytes(b"x")
    out = run(capsys, "verify").splitlines()
    assert sorted(out) == sorted(
        [f"{whole}: whole", f"{changed}: state has changed since it was saved; removed"]
    )
    assert len(cache.entries()) == 1


def test_prune_applies_the_limits(cache: SnapshotStore, capsys: pytest.CaptureFixture[str]) -> None:
    key = save(cache, "web")
    assert "0 snapshots removed, 1 kept" in run(capsys, "prune")
    assert f"removed {key}" in run(capsys, "prune", "--size", "0.0000001")
    assert not cache.entries()


def test_a_limit_that_is_no_number_is_told(
    cache: SnapshotStore, capsys: pytest.CaptureFixture[str]
) -> None:
    del cache
    assert main(["cache", "prune", "--age", "old"]) == 4
    assert "expected: a number of days" in capsys.readouterr().err


def test_clear_removes_all(cache: SnapshotStore, capsys: pytest.CaptureFixture[str]) -> None:
    save(cache, "web")
    assert "removed 1 of 1 snapshots" in run(capsys, "clear")
    assert not cache.entries()
