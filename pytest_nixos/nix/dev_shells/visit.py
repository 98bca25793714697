"""Entering a development shell the way that people do, where it can do no harm.

The shell starts in a copy of the flake's source with a home directory of its own; Nix keeps the
user's caches and settings. What it leaves running is found by an environment variable that its
processes inherit, told, and ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_nixos.local.process import SubprocessRunner, owned_process
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import NixSettings, develop_argv, lock_copy_argv, roots_argv
from pytest_nixos.nix.command.log import NixLog
from pytest_nixos.nix.command.refs import FlakeRef
from pytest_nixos.nix.dev_shells.shell import ShellVisit, changed_files, file_states

__all__ = [
    "KEPT",
    "VISITED",
    "DirenvVisit",
    "Scratch",
    "enter_shell",
    "enter_with_direnv",
    "scratch_copy",
    "visit",
]

_MARK = "PYTEST_NIXOS_VISIT"
_SHOWN_LINES = 30
_INTERVAL_S = 0.05
_QUICK_S = 30.0
_ROOTS_S = 120.0
_ENTERING_S = 1800.0
_LARGEST_OUTPUT = 4 * 1024 * 1024
# Prints the environment. LD_LIBRARY_PATH is passed aside: what a shell sets there may not fit this
# machine's Python.
_REPORT = (
    "import json, os, sys; e = dict(os.environ); sys.argv[1] and e.update(LD_LIBRARY_PATH=sys.argv[1]);"
    ' sys.stdout.write("\\0" + json.dumps(e))'
)
_REPORT_WRAPPER = (
    'paths=${LD_LIBRARY_PATH-}; unset LD_LIBRARY_PATH; exec "$0" -I -S -c "$1" "$paths"'
)
#: The command that runs in the shell.
VISITED = ("/bin/sh", "-c", _REPORT_WRAPPER, sys.executable, _REPORT)
#: What stays in an otherwise empty environment: Nix and its programs need a home directory.
KEPT = ("HOME", "TERM", _MARK)
# The outer shell has no pipes of ours: a process that stays behind would keep them open.
_OUTER = 'exec "$@" >"$0/stdout" 2>"$0/stderr" </dev/null'


@dataclass(frozen=True, slots=True, kw_only=True)
class Scratch:
    """A copy of a flake's source that may be written, and an empty home directory, for one
    visit.
    """

    project: Path
    home: Path
    output: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DirenvVisit:
    """What direnv did with the flake's ``.envrc`` in a copy of the flake.

    :param roots: garbage collector roots that it left below the copy: link to store path.
    """

    succeeded: bool
    said: str
    roots: Mapping[str, str]


def enter_shell(
    settings: NixSettings,
    flake: FlakeRef,
    *,
    system: str,
    shell: str,
    pure: bool,
    root: Path,
    below: str,
) -> ShellVisit:
    """Enter a development shell with ``nix develop`` in a copy of the flake.

    :param pure: with ``--ignore-environment``.
    :param root: the source tree that holds the flake.
    :param below: where in it the flake lies.
    """
    argv = develop_argv(
        settings,
        flake,
        system=system,
        shell=shell,
        command=VISITED,
        kept=KEPT if pure else None,
    )
    with scratch_copy(root) as scratch:
        return visit(argv, scratch, cwd=scratch.project / below, limit_s=_ENTERING_S)


def enter_with_direnv(nix: Nix, *, root: Path, below: str) -> DirenvVisit:
    """Let direnv load ``.envrc`` in a copy of a flake, and look for what it keeps from being
    collected.

    :param root: the source tree that holds the flake.
    :param below: where in it the flake lies.
    """
    runner, settings = nix.runner, nix.settings
    with scratch_copy(root) as scratch:
        directory = scratch.project / below
        env = {
            **_environment(scratch.home, "direnv"),
            "NIX_CONFIG": _configuration(settings.nix_options),
        }
        if settings.override_inputs:
            argv = lock_copy_argv(settings, str(directory))
            runner.run(argv, deadline=Deadline.after(_ENTERING_S), env=env, cwd=directory)
        said = ""
        for words in (("allow", "."), ("exec", ".", "true")):
            argv = ("direnv", *words)
            done = runner.run(argv, deadline=Deadline.after(_ENTERING_S), env=env, cwd=directory)
            said += done.stderr_text
        roots = runner.run(roots_argv(), deadline=Deadline.after(_ROOTS_S))
        return DirenvVisit(
            succeeded=done.exit_status == 0,
            said=said,
            roots=_roots_below(scratch.project, roots.stdout_text),
        )


@contextlib.contextmanager
def scratch_copy(source: Path) -> Iterator[Scratch]:
    """Make the place of a visit, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="nixos-shell-", ignore_cleanup_errors=True) as name:
        root = Path(name)
        scratch = Scratch(project=root / "project", home=root / "home", output=root / "output")
        shutil.copytree(source, scratch.project, symlinks=True)
        for path in (scratch.project, *scratch.project.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | stat.S_IWUSR)
        scratch.home.mkdir()
        scratch.output.mkdir()
        yield scratch


def visit(argv: Sequence[str], scratch: Scratch, *, cwd: Path, limit_s: float) -> ShellVisit:
    """Run a command that enters a shell and runs :data:`VISITED` there.

    :param cwd: directory of the copy in which people would enter it.
    """
    before = file_states(scratch.project)
    mark = uuid.uuid4().hex
    started_s = time.monotonic()
    outer = ("/bin/sh", "-c", _OUTER, str(scratch.output), *argv)
    with owned_process(outer, env=_environment(scratch.home, mark), cwd=cwd) as process:
        status = poll(process.poll, deadline=Deadline.after(limit_s), interval_s=_INTERVAL_S)
        duration_s = time.monotonic() - started_s
        left = _left_running(mark, known=(process.pid,))
    for pid in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    log = NixLog()
    for line in _text(scratch.output / "stderr").splitlines():
        log.feed(line)
    printed, separator, report = _text(scratch.output / "stdout").rpartition("\0")
    entered = status == 0 and bool(separator)
    return ShellVisit(
        entered=entered,
        failure="" if entered else _failure(log, status, limit_s),
        said="\n".join([*(printed if separator else report).splitlines(), *log.plain]),
        environment=json.loads(report) if entered else {},
        default_path=_default_path(scratch.project),
        project=changed_files(before, file_states(scratch.project)),
        home=changed_files({}, file_states(scratch.home)),
        left_running=tuple(left.values()) if status is not None else (),
        duration_s=duration_s,
    )


def _environment(home: Path, mark: str) -> Mapping[str, str]:
    """Return what differs from this process's environment: a home directory of its own, Nix's
    files where they are.
    """
    own = Path.home()
    cache = os.environ.get("XDG_CACHE_HOME") or str(own / ".cache")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or own / ".config")
    return {
        "HOME": str(home),
        "LC_ALL": "C",
        _MARK: mark,
        "XDG_CACHE_HOME": cache,
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "XDG_STATE_HOME": str(home / ".local/state"),
        "NIX_USER_CONF_FILES": os.environ.get("NIX_USER_CONF_FILES", str(config / "nix/nix.conf")),
        "GIT_CONFIG_GLOBAL": os.environ.get("GIT_CONFIG_GLOBAL", str(own / ".gitconfig")),
    }


def _default_path(cwd: Path) -> tuple[str, ...]:
    """Ask this machine's bash, which enters a shell whose flake brings no bash of its own."""
    argv = ("env", "-i", "/bin/sh", "-c", "exec bash -c 'printf %s \"$PATH\"'")
    asked = SubprocessRunner().run(argv, deadline=Deadline.after(_QUICK_S), cwd=cwd)
    return tuple(part for part in asked.stdout_text.split(":") if part)


def _left_running(mark: str, *, known: Sequence[int]) -> Mapping[int, str]:
    wanted = f"{_MARK}={mark}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in known:
            continue
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                found[int(entry.name)] = b" ".join(words).decode(errors="replace").strip()[:200]
    return found


def _failure(log: NixLog, status: int | None, limit_s: float) -> str:
    if status is None:
        return f"not entered after {limit_s:g} s"
    said = [message.text for message in log.errors] or list(log.plain)[-_SHOWN_LINES:]
    return "\n".join(said) or f"exit status {status}"


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_LARGEST_OUTPUT).decode(errors="replace")
    except OSError:
        return ""


def _configuration(options: Sequence[tuple[str, str]]) -> str:
    """Return settings for a Nix that others call, as the commands of this project have them."""
    own = [("extra-experimental-features", "nix-command flakes"), *options]
    return "\n".join(
        [os.environ.get("NIX_CONFIG", ""), *(f"{key} = {value}" for key, value in own)]
    )


def _roots_below(directory: Path, printed: str) -> Mapping[str, str]:
    real = os.path.realpath(directory)
    pairs = (line.partition(" -> ") for line in printed.splitlines())
    return {
        os.path.relpath(link, real): target
        for link, _, target in pairs
        if link.startswith(f"{real}/")
    }
