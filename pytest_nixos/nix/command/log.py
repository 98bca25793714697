"""What Nix says with ``--log-format internal-json``: errors, warnings, build logs and progress.

The format is the same from Nix 2.8 to 2.33 and in Lix: lines of ``@nix {...}`` among plain lines of
the programs that Nix runs. The numbers are ``ActivityType`` and ``ResultType`` of
``libutil/logging.hh``.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from pytest_nixos.local.text import without_escapes

__all__ = ["BuildProgress", "NixLog", "NixMessage", "ProgressSink", "derivation_name", "describe"]

_PREFIX = "@nix "
_INTERNAL = "«nix-internal»/"
_POSITION = re.compile(r":\d+(?::\d+)?$")
_FILE_TRANSFER, _COPY_PATHS, _BUILDS, _BUILD = 101, 103, 104, 105
_BUILD_LOG_LINE, _PROGRESS, _SET_EXPECTED = 101, 105, 106
_ERROR, _WARNING = 0, 1
_HINT = "(use '--show-trace'"  # comes as an error of its own
_TAIL_LINES = 40
_MAX_PLAIN_LINES = 200


class BuildProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far Nix has come.

    :param building: names of the derivations that are being built, without hash and ``.drv``.
    :param built: derivations done; `to_build` includes them.
    :param copied: store paths fetched from a substituter; `to_copy` includes them.
    :param downloaded_bytes: of `to_download_bytes`, zero where Nix does not know.
    """

    building: tuple[str, ...] = ()
    built: int = 0
    to_build: int = 0
    copied: int = 0
    to_copy: int = 0
    downloaded_bytes: int = 0
    to_download_bytes: int = 0


ProgressSink = Callable[[BuildProgress], None]


class NixMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One error of Nix.

    :param text: the message alone, without ``error:``, trace and colour.
    :param whole: the message with its trace, as Nix would print it.
    :param file: where the message points, or ``""``.
    """

    text: str
    whole: str
    file: str = ""
    line: int = 0

    @property
    def place(self) -> str:
        """``file:line``, or ``""`` where the message points at nothing that a user wrote."""
        if not self.file.startswith("/") and (
            "»/" not in self.file or self.file.startswith(_INTERNAL)
        ):
            return ""
        # Newer releases put line and column into `file` where the parser complains.
        return self.file if _POSITION.search(self.file) else f"{self.file}:{self.line}"


class NixLog:
    """Reads the log line by line and keeps what an error or a progress display needs.

    :param on_progress: called with each new state that differs from the one before.
    """

    def __init__(self, on_progress: ProgressSink | None = None) -> None:
        self.errors: list[NixMessage] = []
        self.warnings: list[str] = []
        self.plain: deque[str] = deque(maxlen=_MAX_PLAIN_LINES)
        self.progress = BuildProgress()
        self._on_progress = on_progress
        self._builds: dict[int, str] = {}
        self._kinds: dict[int, int] = {}
        self._logs: dict[str, deque[str]] = {}
        self._counts: dict[int, tuple[int, int]] = {}
        self._transfers: dict[int, tuple[int, int]] = {}
        self._finished_bytes = 0
        self._expected: dict[tuple[int, int], int] = {}

    def feed(self, line: str) -> None:
        """Take one line of Nix's standard error; a malformed one is kept as plain text."""
        event = _event(line)
        if event is None:
            self.plain.append(without_escapes(line))
            return
        action = event.get("action")
        if action == "msg":
            self._message(event)
        elif action == "start":
            self._start(event)
        elif action == "stop":
            self._stop(_integer(event.get("id")))
        elif action == "result":
            self._result(event)
        self._tell()

    @property
    def whole(self) -> str:
        """Everything that Nix and the programs that it ran said, traces too."""
        return "\n\n".join([*(e.whole for e in self.errors), "\n".join(self.plain)]).strip()

    def log_tail(self, derivation: str) -> tuple[str, ...]:
        """Return the last lines that the build of `derivation` printed, as far as they came
        through.
        """
        return tuple(self._logs.get(derivation, ()))

    def _message(self, event: Mapping[str, Any]) -> None:
        whole = without_escapes(str(event.get("msg", "")))
        if event.get("level") == _WARNING:
            self.warnings.append(whole.removeprefix("warning:").strip())
        elif event.get("level") == _ERROR:
            if whole.startswith(_HINT):
                return
            text = without_escapes(str(event.get("raw_msg", ""))) or whole.removeprefix("error:")
            self.errors.append(
                NixMessage(
                    text=text.strip(),
                    whole=whole.strip(),
                    file=str(event.get("file") or ""),
                    line=_integer(event.get("line")),
                )
            )
        elif whole:
            self.plain.append(whole)

    def _start(self, event: Mapping[str, Any]) -> None:
        number, kind = _integer(event.get("id")), _integer(event.get("type"))
        self._kinds[number] = kind
        fields = event.get("fields") or []
        if kind == _BUILD and fields:
            self._builds[number] = str(fields[0])
            self._logs[str(fields[0])] = deque(maxlen=_TAIL_LINES)

    def _stop(self, number: int) -> None:
        self._kinds.pop(number, None)
        self._builds.pop(number, None)
        self._finished_bytes += self._transfers.pop(number, (0, 0))[0]

    def _result(self, event: Mapping[str, Any]) -> None:
        number, kind = _integer(event.get("id")), _integer(event.get("type"))
        fields = event.get("fields") or []
        if kind == _BUILD_LOG_LINE and fields:
            log = self._logs.get(self._builds.get(number, ""))
            if log is not None:
                log.append(without_escapes(str(fields[0])))
        elif kind == _PROGRESS and len(fields) >= 2:
            self._progressed(number, _integer(fields[0]), _integer(fields[1]))
        elif kind == _SET_EXPECTED and len(fields) >= 2:
            self._expected[number, _integer(fields[0])] = _integer(fields[1])

    def _progressed(self, number: int, done: int, expected: int) -> None:
        activity = self._kinds.get(number)
        if activity in (_BUILDS, _COPY_PATHS):
            self._counts[activity] = (done, expected)
        elif activity == _FILE_TRANSFER:
            self._transfers[number] = (done, expected)

    def _tell(self) -> None:
        built, to_build = self._counts.get(_BUILDS, (0, 0))
        copied, to_copy = self._counts.get(_COPY_PATHS, (0, 0))
        downloaded = self._finished_bytes + sum(done for done, _ in self._transfers.values())
        expected = sum(n for (_, kind), n in self._expected.items() if kind == _FILE_TRANSFER)
        progress = BuildProgress(
            building=tuple(derivation_name(drv) for drv in self._builds.values()),
            built=built,
            to_build=to_build,
            copied=copied,
            to_copy=to_copy,
            downloaded_bytes=downloaded,
            to_download_bytes=max(expected, downloaded),
        )
        if progress != self.progress:
            self.progress = progress
            if self._on_progress is not None:
                self._on_progress(progress)


def describe(progress: BuildProgress) -> str:
    """Say in one line how far Nix has come, ``""`` if it has nothing to do."""
    parts = []
    if progress.to_build:
        names = ", ".join(progress.building[:3])
        more = f" and {len(progress.building) - 3} more" if len(progress.building) > 3 else ""
        parts.append(f"built {progress.built}/{progress.to_build}")
        if names:
            parts.append(f"building {names}{more}")
    if progress.to_copy:
        parts.append(f"fetched {progress.copied}/{progress.to_copy} paths")
    if progress.to_download_bytes:
        parts.append(
            f"{_mebibytes(progress.downloaded_bytes)} of {_mebibytes(progress.to_download_bytes)} MiB"
        )
    return ", ".join(parts)


def derivation_name(store_path: str) -> str:
    """Return the name in a store path: ``/nix/store/<hash>-linux-6.6.drv`` gives ``linux-6.6``."""
    base = store_path.rsplit("/", 1)[-1].removesuffix(".drv")
    return base.split("-", 1)[1] if "-" in base else base


def _event(line: str) -> Mapping[str, Any] | None:
    if not line.startswith(_PREFIX):
        return None
    try:
        event = json.loads(line.removeprefix(_PREFIX))
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):.1f}"
