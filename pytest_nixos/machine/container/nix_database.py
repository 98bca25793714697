"""The Nix database of a container: what of the shared store it knows as valid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_nixos.errors import MachineError
from pytest_nixos.local.process import Completed, Runner, find_tool
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.container.kept_database import KeptDatabases

__all__ = ["load_closure", "load_environment"]

_REMEDY = (
    "install Nix on this machine, or put nix-store on PATH (under sudo: sudo -E env PATH=$PATH ...)"
)


def load_environment(root: Path) -> dict[str, str]:
    """Build the variables that point ``nix-store`` at a container's database beside the shared
    store.
    """
    # "local" keeps a user's NIX_REMOTE=daemon from sending the registration to the host machine.
    return {"NIX_STATE_DIR": str(root / "nix/var/nix"), "NIX_REMOTE": "local"}


def load_closure(
    runner: Runner,
    root: Path,
    toplevel: Path,
    *,
    deadline: Deadline,
    known: bytes | None = None,
    kept: KeptDatabases | None = None,
) -> None:
    """Register the closure of `toplevel` in the database of the container at `root`.

    Without it ``nix-env --profile /nix/var/nix/profiles/system --set`` in the container finds no
    valid path. Read from the host machine's database, written as ``nix-store --load-db``, as NixOS'
    own VM does at boot.

    :param known: what the host machine's database would say, where it has none.
    :param kept: databases of earlier containers; only what the host machine's database says is kept.
    :raises MachineError: if Nix cannot tell or register it.
    """
    nix_store = find_tool("nix-store", remedy=_REMEDY)
    if known is not None:
        _load(runner, nix_store, root, known, deadline)
        return
    database = root / "nix/var/nix/db"
    if kept is not None and _restored(kept, database, toplevel, nix_store):
        return
    closure = _run(runner, [nix_store, "--query", "--requisites", str(toplevel)], deadline)
    paths = closure.stdout_text.split()
    told = _run(runner, [nix_store, "--dump-db", *paths], deadline).stdout
    _load(runner, nix_store, root, told, deadline)
    if kept is not None:
        kept.keep(database, toplevel, nix_store, paths=paths)


def _restored(kept: KeptDatabases, database: Path, toplevel: Path, nix_store: str) -> bool:
    try:
        return kept.restore(database, toplevel, nix_store)
    except OSError as err:
        raise MachineError(
            f"{database}: the container's Nix database cannot be written: {err.strerror}",
            remedy="free some space there, or set TMPDIR to a directory with room",
        ) from err


def _load(
    runner: Runner, nix_store: str, root: Path, registration: bytes, deadline: Deadline
) -> None:
    # A database that goes with the run need not survive this machine's end.
    load = [nix_store, "--load-db", "--option", "fsync-metadata", "false"]
    _run(runner, load, deadline, stdin=registration, env=load_environment(root))


def _run(
    runner: Runner,
    argv: Sequence[str],
    deadline: Deadline,
    *,
    stdin: bytes = b"",
    env: dict[str, str] | None = None,
) -> Completed:
    done = runner.run(argv, deadline=deadline, stdin=stdin, env=env)
    if done.exit_status != 0:
        lines = done.stderr_text.strip().splitlines() or ["no message"]
        raise MachineError(
            f"{argv[0]} {argv[1]}: {lines[-1]}",
            remedy="check that the toplevel is a valid path of this machine's store",
            detail=done.stderr_text,
        )
    return done
