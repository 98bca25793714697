"""What ``python -m pytest_nixos cache`` says and does, over a real cache in a directory."""

from __future__ import annotations

import os
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
from pytest_nixos.standards.sources.scan_cache import PathScan, ScanCache, ScanFile


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


def scanned() -> Path:
    file = ScanFile.of_user().path
    cache = ScanCache(file=file)
    scan = PathScan(own=True, files=1, unread=(), hits=())
    cache.put(Path("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-etc"), scan, own=True)
    cache.write()
    return file


def test_scans_of_store_paths_are_listed_and_cleared(
    cache: SnapshotStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "0 scans of store paths, 0 bytes" in run(capsys)
    file = scanned()
    assert f"1 scans of store paths, {file.stat().st_size} bytes" in run(capsys)
    assert f"{file}: whole" in run(capsys, "verify")
    assert "scans of store paths kept" in run(capsys, "prune")
    assert "removed 1 scans" in run(capsys, "clear")
    assert not file.exists() and "removed 0 scans" in run(capsys, "clear")


@pytest.mark.parametrize("harm", ["truncated", "rules", "entry", "shared"])
def test_scans_that_are_not_as_they_were_written_are_removed(
    harm: str, cache: SnapshotStore, capsys: pytest.CaptureFixture[str]
) -> None:
    file = scanned()
    text = file.read_text()
    changed = {
        "truncated": text[:-5],
        "rules": text.replace('"rules": "', '"rules": "0'),
        "entry": text.replace('"files": 1', '"files": "many"'),
        "shared": text,
    }
    file.write_text(changed[harm])
    if harm == "shared":
        file.chmod(0o666)
    out = run(capsys, "verify")
    assert f"{file}: " in out and "; removed" in out
    assert not file.exists()


def test_scans_that_nobody_adds_to_are_pruned(
    cache: SnapshotStore, capsys: pytest.CaptureFixture[str]
) -> None:
    file = scanned()
    os.utime(file, (0, 0))
    assert "scans of store paths removed" in run(capsys, "prune", "--age", "1")
    assert not file.exists()


def test_images_of_stores_are_listed_and_cleared(
    cache: SnapshotStore, capsys: pytest.CaptureFixture[str]
) -> None:
    images = cache.directory.parent / "store-images"
    images.mkdir(parents=True)
    (images / "a.img").write_bytes(bytes(2 << 20))
    assert main(["cache"]) == 0
    assert "store-images: 1 images of stores, 2 MiB" in capsys.readouterr().out
    assert main(["cache", "prune"]) == 0
    assert "removed 0 images of stores" in capsys.readouterr().out
    assert main(["cache", "clear"]) == 0
    assert "removed 1 images of stores" in capsys.readouterr().out
    assert not list(images.iterdir())
