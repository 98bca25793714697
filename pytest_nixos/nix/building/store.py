"""Nix on this machine: its commands are run here, and its store is built and read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_nixos.errors import BuildError, EvalError, ToolMissingError
from pytest_nixos.local.process import Completed, ProcessTimeout, Runner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.nix.asked_once import AskedOnce
from pytest_nixos.nix.command.argv import (
    NixSettings,
    build_ahead_argv,
    build_argv,
    closure_argv,
    closure_size_argv,
    dump_database_argv,
    export_argv,
    log_argv,
    root_argv,
    version_argv,
)
from pytest_nixos.nix.command.log import NixLog, ProgressSink
from pytest_nixos.nix.failure.build import build_failure

__all__ = ["Nix", "parsed_json"]

Json = Any

_INSTALL = (
    "install Nix: `apt install nix-bin` on Debian and Ubuntu, the installer on nixos.org elsewhere"
)
_QUICK_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Nix:
    """Nix on this machine, for one set of settings: how its commands are run, and its store."""

    runner: Runner
    settings: NixSettings = field(default_factory=NixSettings)
    _answers: AskedOnce = field(default_factory=AskedOnce, init=False, compare=False, repr=False)

    def version(self) -> str:
        """Return what ``nix --version`` says, for example ``nix (Nix) 2.26.3``; it is asked once.

        :raises ToolMissingError: if there is no Nix.
        """
        return self._answers.of("version", self._asked_version)

    def _asked_version(self) -> str:
        answer = self.run(version_argv(self.settings), NixLog(), _QUICK_S)
        return answer.stdout_text.strip()

    def build(
        self,
        derivation: str,
        *,
        gc_root: Path,
        output: str = "",
        on_progress: ProgressSink | None = None,
    ) -> Path:
        """Build a derivation and keep it from the garbage collector.

        :param gc_root: symlink to make, in a directory that is made if it is missing.
        :param output: store path that it is known to build; where that is valid already, nothing is
            built.
        :param on_progress: called as Nix gets on.
        :return: store path of its ``out`` output.
        :raises BuildError: with the end of the log of the derivation that failed.
        """
        gc_root.parent.mkdir(parents=True, exist_ok=True)
        if output and self._was_built(output, gc_root):
            return Path(output)
        log = NixLog(on_progress)
        argv = build_argv(self.settings, derivation, gc_root=gc_root, version=self.version())
        try:
            answer = self.run(argv, log, self.settings.build_limit_s)
        except ProcessTimeout as err:
            raise BuildError(
                f"{derivation}: still building after {self.settings.build_limit_s:g} s",
                remedy="raise the limit, or build on a faster machine and copy the result",
                derivation=derivation,
            ) from err
        if answer.exit_status != 0:
            raise build_failure(
                derivation, log, answer.exit_status, read_log=self._log_of_derivation
            )
        outputs = parsed_json(answer, derivation)[0]["outputs"]
        return Path(outputs.get("out") or next(iter(outputs.values())))

    def build_ahead(
        self, derivations: Sequence[str], *, on_progress: ProgressSink | None = None
    ) -> None:
        """Build derivations at once, as many at a time as Nix is set to; keep none of them.

        What does not build is told by :meth:`build`, which stops at the same derivation at once.
        """
        argv = build_ahead_argv(self.settings, derivations, version=self.version())
        with contextlib.suppress(ProcessTimeout):
            self.run(argv, NixLog(on_progress), self.settings.build_limit_s)

    def closure(self, path: Path) -> tuple[Path, ...]:
        """Return the store paths that `path` needs at run time, itself included.

        :raises BuildError: if it is no valid store path.
        """
        log = NixLog()
        answer = self.run(closure_argv(self.settings, path), log, _QUICK_S)
        if answer.exit_status != 0:
            raise build_failure(str(path), log, answer.exit_status, read_log=lambda _: ())
        return tuple(Path(line) for line in answer.stdout_text.split())

    def closure_bytes(self, path: Path) -> int | None:
        """Return how large all that `path` needs at run time is, in bytes; ``None`` if Nix does
        not tell.
        """
        argv = closure_size_argv(self.settings, path, version=self.version())
        answer = self.run(argv, NixLog(), _QUICK_S)
        return closure_size(answer.stdout_text) if answer.exit_status == 0 else None

    def dump_database(self, paths: Sequence[Path]) -> bytes:
        """Return what the database knows of `paths`, as ``nix-store --load-db`` reads it.

        :raises BuildError: if one is no valid store path.
        """
        return self._store_output(dump_database_argv(paths), str(paths[0])) if paths else b""

    def export(self, paths: Sequence[Path]) -> bytes:
        """Return `paths` as ``nix-store --import`` reads them.

        :raises BuildError: if one is no valid store path.
        """
        return self._store_output(export_argv(paths), str(paths[0])) if paths else b""

    def _store_output(self, argv: Sequence[str], subject: str) -> bytes:
        log = NixLog()
        answer = self.run(argv, log, self.settings.build_limit_s)
        if answer.exit_status != 0:
            raise build_failure(subject, log, answer.exit_status, read_log=lambda _: ())
        return answer.stdout

    def run(self, argv: Sequence[str], log: NixLog, limit_s: float) -> Completed:
        """Run a Nix command and feed its standard error to `log`.

        :raises ProcessTimeout: if it takes longer than `limit_s` seconds.
        :raises ToolMissingError: if there is no Nix.
        """
        try:
            return self.runner.run(argv, deadline=Deadline.after(limit_s), on_stderr_line=log.feed)
        except ToolMissingError as err:
            raise ToolMissingError(
                f"{argv[0]}: Nix is not installed or not on PATH", remedy=_INSTALL
            ) from err

    def _log_of_derivation(self, derivation: str) -> Sequence[str]:
        answer = self.run(log_argv(self.settings, derivation), NixLog(), _QUICK_S)
        return answer.stdout_text.splitlines()[-40:] if answer.exit_status == 0 else ()

    def _was_built(self, output: str, gc_root: Path) -> bool:
        """Make `gc_root` if `output` is there and whole.

        That a path exists does not say so: a build that was cut short may have left it. Nix's
        database does.
        """
        if not Path(output).exists():
            return False
        try:
            argv = root_argv(self.settings, output, gc_root=gc_root)
            answer = self.run(argv, NixLog(), _QUICK_S)
        except (ProcessTimeout, ToolMissingError):
            return False
        return answer.exit_status == 0


def parsed_json(answer: Completed, subject: str) -> Json:
    """Return what a command printed as JSON.

    :param subject: what the command was about.
    :raises EvalError: if it printed something else.
    """
    try:
        return json.loads(answer.stdout)
    except RecursionError as err:
        raise EvalError(
            f"{subject}: Nix answered JSON that is nested too deeply to be read",
            remedy="look for a value that contains itself among the options of the host",
        ) from err
    except ValueError as err:
        raise EvalError(
            f"{subject}: Nix answered something other than JSON: {answer.stdout_text[:200]!r}",
            remedy="run the same command by hand; a wrapper named nix may print to standard output",
            detail=answer.stderr_text,
        ) from err


def closure_size(text: str) -> int | None:
    """Read ``nix path-info --closure-size --json``.

    It prints a list up to Nix 2.18, then an object by path, and from 2.33 on, asked for no form,
    that object below ``info``.
    """
    try:
        document = json.loads(text)
    except ValueError:
        return None
    if isinstance(document, dict) and isinstance(document.get("info"), dict):
        document = document["info"]
    rows = document if isinstance(document, list) else list(document.values())
    sizes = [row.get("closureSize") for row in rows if isinstance(row, dict)]
    return sizes[0] if sizes and isinstance(sizes[0], int) else None
