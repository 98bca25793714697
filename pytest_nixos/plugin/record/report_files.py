"""The files of ``--nixos-report``: tried before anything is built, each written on its own."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest

from pytest_nixos.errors import SettingsError
from pytest_nixos.findings import Finding
from pytest_nixos.local.text import printable
from pytest_nixos.plugin.record.signature import Signer
from pytest_nixos.plugin.settings.options import ReportTarget, Settings
from pytest_nixos.report.facts import ReportWriter, RunFacts

__all__ = ["ReportFiles"]

_PRIVATE = 0o600
#: Stands in a report's file name for each host.
_EACH_HOST = "{host}"
_LONGEST_NAME = 150
_MOST_LINKS = 40


class ReportFiles:
    """Writes the reports that were asked for.

    A report holds what a machine's journal said, so its file is for its owner alone.

    :param writers: by format.
    :param targets: what to write where.
    :param signer: signs each of them, where there is one.
    """

    def __init__(
        self,
        writers: Mapping[str, ReportWriter],
        targets: Sequence[ReportTarget],
        signer: Signer | None = None,
    ) -> None:
        self._signer = signer
        self._writers = writers
        self._targets = targets
        self.lines: list[str] = []
        self.failed = False

    @classmethod
    def prepare(cls, config: pytest.Config, settings: Settings) -> ReportFiles:
        """Find the writer of each format, and try each file.

        :raises SettingsError: if a format is not known, a file cannot be written or a key not sign.
        """
        if not settings.reports:
            return cls({}, (), Signer.of(settings.sign))
        from pytest_nixos.report.formats.bundled import BUNDLED_WRITERS

        writers = dict(BUNDLED_WRITERS)
        for offered in config.hook.pytest_nixos_report_writers(config=config):
            writers |= offered
        signer = Signer.of(settings.sign)
        _refuse_twice(settings.reports, signer)
        for target in settings.reports:
            if target.format not in writers:
                raise SettingsError(
                    f"--nixos-report {target}: no such format",
                    remedy=f"known formats: {', '.join(sorted(writers))}",
                )
            try:
                _try(target.path)
            except OSError as err:
                raise SettingsError(
                    f"--nixos-report {target}: cannot be written: {err.strerror or err}",
                    remedy="name a file in a directory that you may write to",
                ) from err
        return cls(writers, settings.reports, signer)

    def check_hosts(self, keys: Sequence[str]) -> None:
        """Refuse files that are one and the same once ``{host}`` is each host's name.

        :raises SettingsError: if there are any.
        """
        targets = [
            of_host
            for target in self._targets
            for of_host in (
                [_of_host(target, key) for key in keys]
                if _EACH_HOST in target.path.name
                else [target]
            )
        ]
        _refuse_twice(targets, self._signer)

    def write(self, findings: Sequence[Finding], facts: RunFacts) -> None:
        """Write every report; one that fails takes no other with it, and is told in
        :attr:`lines`.
        """
        parts = [part for target in self._targets for part in _parts(target, findings, facts)]
        for target, of_findings, of_facts in parts:
            try:
                text = self._writers[target.format](of_findings, of_facts)
                _write(target.path, text)
                if self._signer is not None and target.path.is_file():
                    self._signer.sign(target.path)
            # A writer may be another plugin's, and what it raises must not cost the other reports.
            except Exception as err:  # noqa: BLE001 - recorded: it is told, and the run fails
                self.failed = True
                why = (
                    err.strerror
                    if isinstance(err, OSError) and err.strerror
                    else f"{type(err).__name__}: {err}"
                )
                self.lines.append(printable(f"report {target} was not written: {why}"))
            else:
                self.lines.append(printable(f"report: {target.path.resolve()}"))


def _parts(
    target: ReportTarget, findings: Sequence[Finding], facts: RunFacts
) -> Iterator[tuple[ReportTarget, Sequence[Finding], RunFacts]]:
    """Yield what goes into which file: all, or where the file's name holds ``{host}`` each host's own."""
    if _EACH_HOST not in target.path.name:
        yield target, findings, facts
        return
    for host, of_host in facts.hosts.items():
        yield (
            _of_host(target, host),
            [finding for finding in findings if finding.host == host],
            msgspec.structs.replace(facts, hosts={host: of_host}),
        )


def _of_host(target: ReportTarget, host: str) -> ReportTarget:
    name = target.path.name.replace(_EACH_HOST, quote(host, safe="")[:_LONGEST_NAME])
    return ReportTarget(target.format, target.path.with_name(name))


def _refuse_twice(targets: Sequence[ReportTarget], signer: Signer | None) -> None:
    """Refuse two reports in one file, or one where the signature of another goes: the second would
    replace the first.

    :raises SettingsError: if there are any; what is no file (``/dev/null``) may be named twice.
    """
    seen: dict[Path, str] = {}
    for target in targets:
        real = target.path.resolve()
        if real.exists() and not real.is_file():
            continue
        files = {real: str(target)}
        if signer is not None:
            files[signer.beside(real)] = f"the signature of {target}"
        for file, what in files.items():
            if file in seen:
                raise SettingsError(
                    f"--nixos-report {target}: {seen[file]} and {what} go to the same file",
                    remedy="give each report a file of its own",
                )
        seen |= files


def _try(path: Path) -> None:
    """Find out whether `path` can be written, and leave it as it is.

    :raises OSError: if it cannot.
    """
    if _is_descriptor(path):
        raise OSError("it is what this process has open, which pytest itself writes to")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY))
        return
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def _is_descriptor(path: Path) -> bool:
    """Whether a path leads to a descriptor of this process, as ``/dev/stdout`` does."""
    for _ in range(_MOST_LINKS):
        if not path.is_symlink():
            return False
        folder = path.parent.resolve()
        if folder.name == "fd" and folder.is_relative_to("/proc"):
            return True
        path = folder / path.readlink()
    return False


def _write(path: Path, text: str) -> None:
    """Replace a file at once, so that nobody reads half a report; what is no plain file is
    written to.

    :raises OSError: if that is not possible.
    """
    real = path.resolve()
    if real.exists() and not stat.S_ISREG(real.stat().st_mode):
        real.write_text(text, encoding="utf-8")
        return
    draft = real.with_name(f".{real.name[:200]}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
            file.write(text)
        draft.replace(real)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()
