"""The watching process: one run of pytest after the other, each a process of its own, and between
them the wait for a change of the flake.

A process of its own imports everything anew, and what a run leaves behind ends with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from pytest_nixos.errors import NixosError, SettingsError
from pytest_nixos.local.run_signals import RunSignals
from pytest_nixos.local.text import printable, printable_lines
from pytest_nixos.machine.spare.claim import end_spares
from pytest_nixos.nix.command.refs import FileRef
from pytest_nixos.plugin.settings.options import Settings
from pytest_nixos.plugin.watch.notes import VARIABLE, WatchNotes
from pytest_nixos.plugin.watch.places import Places, local_inputs
from pytest_nixos.plugin.watch.ready import ReadyRun
from pytest_nixos.standards.sources.flake_files import flake_directory

__all__ = ["in_watched_session", "watch"]

_OPTION = "--nixos-watch"
_NAMED = 3


def in_watched_session() -> bool:
    """Whether this process is a run of a watched session, whose ini file may ask for one too."""
    return bool(os.environ.get(VARIABLE))


def watch(config: pytest.Config) -> int:
    """Run pytest, and again after each change, until it is interrupted.

    :return: pytest's exit status of an interrupted run.
    :raises pytest.UsageError: if the settings are wrong, there is nothing to watch, or the run asks
        for what only a whole run can give.
    """
    try:
        settings = Settings.from_config(config)
        _refuse(config, settings)
        places = _places(config, settings)
    except NixosError as err:
        raise pytest.UsageError(printable_lines(str(err))) from err
    arguments = [word for word in map(str, config.invocation_params.args) if word != _OPTION]
    with (
        tempfile.TemporaryDirectory(prefix="nixos-watch-") as path,
        _no_spare_left(),
        RunSignals() as signals,
    ):
        notes = WatchNotes(Path(path), os.getpid())
        runs = _Runs(arguments, {**os.environ, VARIABLE: str(notes)})
        with contextlib.closing(runs):
            while True:
                before = places.look()
                if _interrupted(runs, signals):
                    break
                runs.make_ready()
                _say(f"waiting for a change of {places.told} (Ctrl-C ends)")
                changed = places.wait(before, until=lambda: bool(signals.came))
                if signals.came:
                    break
                runs.look_at(changed)
                notes.add_changed(changed)
                _say(_told(changed, config.invocation_params.dir))
    return pytest.ExitCode.INTERRUPTED


@contextlib.contextmanager
def _no_spare_left() -> Iterator[None]:
    try:
        yield
    finally:
        end_spares(owner=os.getpid())


def _refuse(config: pytest.Config, settings: Settings) -> None:
    of_whole_runs = {
        "--nixos-report": config.getoption("nixos_report") is not None,
        "--nixos-record": settings.record is not None,
        "--nixos-sign": config.getoption("nixos_sign") is not None,
        "--nixos-replay": settings.replay is not None,
        "--nixos-prepared": bool(settings.prepared),
        "--nixos-upgrade-from": settings.upgrade_from is not None,
    }
    for option, given in of_whole_runs.items():
        if given:
            raise SettingsError(
                f"{_OPTION} does not go with {option}: after a change only what that can affect is judged",
                remedy=f"leave {option} out, or run once without {_OPTION}",
            )
    if not settings.active:
        raise SettingsError(f"{_OPTION}: no host is named", remedy="add --nixos-flake REF#HOST")


def _places(config: pytest.Config, settings: Settings) -> Places:
    cwd = config.invocation_params.dir
    urls: list[str] = []
    for selection in settings.flakes:
        flake = selection.flake
        if isinstance(flake, FileRef):
            # Read as it lies there, tracked by git or not.
            urls += [f"path:{flake.path.parent}", str(flake.path.parent)]
        else:
            urls.append(flake.url)
            directory = flake_directory(flake.url)
            urls += () if directory is None else local_inputs(directory)
    urls += [r if ":" in r else str((cwd / r).resolve()) for _, r in settings.override_inputs]
    given = (config.inipath, settings.waivers, settings.baseline)
    files = [
        *(cwd / word.partition("::")[0] for word in config.option.file_or_dir),
        *(path for path in given if path is not None),
        *(toml for directory in settings.catalogue_dirs for toml in directory.rglob("*.toml")),
    ]
    places = Places.of_flakes(urls, files, written=_written(config))
    if not (places.directories or places.repositories):
        named = ", ".join(str(selection.flake) for selection in settings.flakes)
        raise SettingsError(
            f"{_OPTION}: nothing of {named} lies on this machine, so nothing can change",
            remedy="name a checkout: --nixos-flake .#host",
        )
    return places


def _written(config: pytest.Config) -> Iterator[Path]:
    """Yield what pytest itself may write among the sources."""
    for name in ("xmlpath", "htmlpath", "report_log"):
        path = getattr(config.option, name, None)
        if path:
            yield config.invocation_params.dir / path
    yield config.rootpath / ".coverage"


class _Runs:
    """Starts the runs of a session, one of them beforehand."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._arguments = arguments
        self._environment = environment
        self._ready: ReadyRun | None = None

    def make_ready(self) -> None:
        """Have the next run import what it needs while nobody waits for it."""
        with contextlib.suppress(OSError):  # that run is started when it is wanted
            self._ready = ReadyRun(
                self._arguments, self._environment, as_module=_started_as_module()
            )

    def look_at(self, changed: Sequence[Path]) -> None:
        """Give up a run that is ready and may have imported what was changed."""
        if ReadyRun.is_stale(changed):
            self.close()

    def start(self) -> int:
        """Start a run; return its process id."""
        ready, self._ready = self._ready, None
        if ready is not None and (pid := ready.go()):
            return pid
        safe_path = () if _started_as_module() else ("-P",)
        return os.posix_spawn(
            sys.executable,
            [sys.executable, *safe_path, "-m", "pytest", *self._arguments],
            dict(self._environment),
        )

    def close(self) -> None:
        """End a run that is ready."""
        if self._ready is not None:
            self._ready.close()
            self._ready = None


def _interrupted(runs: _Runs, signals: RunSignals) -> bool:
    """Run pytest once on this terminal; return whether somebody ended it."""
    if signals.came:
        return True
    signals.run = runs.start()
    if signals.came:  # just before it was there
        os.kill(signals.run, signal.SIGTERM)
    status = os.waitstatus_to_exitcode(os.waitpid(signals.run, 0)[1])
    signals.run = 0
    if status == pytest.ExitCode.INTERRUPTED or status < 0:
        return bool(signals.came)
    # A debugger's prompt in there takes Ctrl-C for itself, and the run goes on.
    signals.came.clear()
    return False


def _started_as_module() -> bool:
    """Whether the working directory is importable, as ``python -m pytest`` makes it."""
    return Path(sys.argv[0]).name == "__main__.py"


def _told(changed: Sequence[Path], cwd: Path) -> str:
    """Name what changed; git's record of the branch is a commit."""
    names = [
        "the commit"
        if path.parts[-2:] == ("logs", "HEAD")
        else str(path.relative_to(cwd) if path.is_relative_to(cwd) else path)
        for path in changed
    ]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more} changed"


def _say(text: str) -> None:
    sys.stdout.write(f"nixos-watch: {printable(text)}\n")
    sys.stdout.flush()
