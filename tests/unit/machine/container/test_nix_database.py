"""A container's Nix database: what Nix is asked, and what is kept for the next container."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.local.process import Completed, SubprocessRunner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.container.kept_database import KeptDatabases
from pytest_nixos.machine.container.nix_database import load_closure, load_environment
from pytest_nixos.nix.command.cache import EvaluationCache

LOAD = ["--load-db", "--option", "fsync-metadata", "false"]


class Store:
    """Answers as nix-store does, and keeps what it was asked."""

    def __init__(self, failing: str = "") -> None:
        self.calls: list[tuple[list[str], bytes, dict[str, str]]] = []
        self.failing = failing

    def run(
        self, argv: Any, *, deadline: Deadline, stdin: bytes = b"", env: Any = None, **_: Any
    ) -> Completed:
        self.calls.append((list(argv[1:]), stdin, dict(env or {})))
        failed = argv[1] == self.failing
        outputs = {"--query": b"/nix/store/a\n/nix/store/t\n", "--dump-db": b"registration"}
        return Completed(
            argv=tuple(argv),
            exit_status=1 if failed else 0,
            stdout=outputs.get(argv[1], b""),
            stderr=b"warning: x\nerror: path '/nix/store/t' is not valid\n" if failed else b"",
        )


def _with_nix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nix-store"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_the_closure_is_registered_in_the_containers_own_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_nix(tmp_path, monkeypatch)
    store = Store()
    load_closure(store, Path("/r"), Path("/nix/store/t"), deadline=Deadline.after(60))
    state = {"NIX_STATE_DIR": "/r/nix/var/nix", "NIX_REMOTE": "local"}
    assert store.calls == [
        (["--query", "--requisites", "/nix/store/t"], b"", {}),
        (["--dump-db", "/nix/store/a", "/nix/store/t"], b"", {}),
        (LOAD, b"registration", state),
    ]


def test_a_toplevel_that_nix_does_not_know_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_nix(tmp_path, monkeypatch)
    with pytest.raises(MachineError, match="is not valid") as caught:
        load_closure(
            Store("--query"), Path("/r"), Path("/nix/store/t"), deadline=Deadline.after(60)
        )
    assert "warning: x" in caught.value.detail


@pytest.fixture
def closure(tmp_path: Path) -> list[str]:
    """Paths as a store has them."""
    paths = [tmp_path / "store/a", tmp_path / "store/t"]
    for path in paths:
        path.mkdir(parents=True)
    return [str(path) for path in paths]


@pytest.fixture
def kept(tmp_path: Path) -> KeptDatabases:
    return KeptDatabases(EvaluationCache(directory=tmp_path / "cache"))


def _program_of_nix(tmp_path: Path) -> str:
    program = tmp_path / "nix-store"
    program.write_text("2.8")
    return str(program)


def _database(directory: Path) -> Path:
    directory.mkdir()
    for name, data in {"db.sqlite": b"rows" * 999, "schema": b"10"}.items():
        (directory / name).write_bytes(data)
    for name in ("big-lock", "reserved"):
        (directory / name).write_bytes(b"x")
    return directory


def _files(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_a_database_is_kept_for_the_next_container_of_the_same_closure(
    tmp_path: Path, closure: list[str], kept: KeptDatabases
) -> None:
    nix, toplevel = _program_of_nix(tmp_path), Path(closure[-1])
    assert not kept.restore(tmp_path, toplevel, nix)
    kept.keep(_database(tmp_path / "one"), toplevel, nix, paths=closure)
    (tmp_path / "two").mkdir()
    assert kept.restore(tmp_path / "two", toplevel, nix)
    assert _files(tmp_path / "two") == {"db.sqlite": b"rows" * 999, "schema": b"10"}


@pytest.mark.parametrize("change", ["built again", "collected", "other Nix", "other toplevel"])
def test_a_database_that_may_be_wrong_is_made_anew(
    tmp_path: Path, closure: list[str], kept: KeptDatabases, change: str
) -> None:
    nix, toplevel = _program_of_nix(tmp_path), Path(closure[-1])
    kept.keep(_database(tmp_path / "one"), toplevel, nix, paths=closure)
    if change == "built again":
        Path(closure[0]).rename(tmp_path / "old")
        Path(closure[0]).mkdir()
    elif change == "collected":
        Path(closure[0]).rmdir()
    elif change == "other Nix":
        Path(nix).write_text("2.34")
    else:
        toplevel = Path(closure[0])
    (tmp_path / "two").mkdir()
    assert not kept.restore(tmp_path / "two", toplevel, nix)
    assert not _files(tmp_path / "two")


def test_what_a_preparation_told_is_not_kept(
    tmp_path: Path, closure: list[str], kept: KeptDatabases, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_nix(tmp_path, monkeypatch)
    store, toplevel = Store(), Path(closure[-1])
    root = tmp_path / "root"
    (root / "nix/var/nix/db").mkdir(parents=True)
    for _ in range(2):
        load_closure(store, root, toplevel, known=b"told", kept=kept, deadline=Deadline.after(60))
    assert [(argv, stdin) for argv, stdin, _ in store.calls] == [(LOAD, b"told")] * 2
    assert not kept.directory.exists()


@pytest.mark.skipif(not shutil.which("nix-store"), reason="needs Nix")
def test_nix_finds_in_a_kept_database_what_it_put_there(
    tmp_path: Path, kept: KeptDatabases
) -> None:
    runner, limit = SubprocessRunner(), Deadline.after(60)
    (tmp_path / "source").write_text("text")
    added = runner.run(["nix-store", "--add", str(tmp_path / "source")], deadline=limit)
    path = Path(added.stdout_text.strip())
    asked = []
    for name in ("one", "two"):
        root = tmp_path / name
        (root / "nix/var/nix/db").mkdir(parents=True)
        load_closure(runner, root, path, kept=kept, deadline=limit)
        dump = ["nix-store", "--dump-db"]
        made_anew = (root / "nix/var/nix/db/big-lock").exists()
        told = runner.run(dump, deadline=limit, env=load_environment(root))
        asked.append((made_anew, told.stdout_text))
    assert [made_anew for made_anew, _ in asked] == [True, False]
    assert asked[0][1] == asked[1][1]
    assert asked[0][1].splitlines()[0] == str(path)
