"""Findings: the outcome of one control on one host, with evidence; and the ledger that keeps
them.
"""

from __future__ import annotations

import dataclasses
import enum
import errno
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec

from pytest_nixos.place import Place
from pytest_nixos.subject import MACHINE, MEMORY, Subject, SubjectKind

__all__ = ["Evidence", "Finding", "JudgedOn", "Ledger", "Outcome", "Severity"]

_MAX_ATTACHMENT = 64 * 1024


class Severity(enum.IntEnum):
    """How much a violated control matters; greater is worse."""

    STYLE = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


class Outcome(enum.Enum):
    """What became of one control on one host."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not-applicable"
    WAIVED = "waived"
    ERROR = "error"


class JudgedOn(enum.Enum):
    """Whose word a verdict rests on; root of a guest can make up what the guest says.

    ``both`` is the machine held against the evaluated config, ``outside and machine`` an outside
    look held against what the guest says.
    """

    MACHINE = "machine"
    CONFIG = "config"
    BOTH = "both"
    OUTSIDE = "outside"
    OUTSIDE_AND_MACHINE = "outside and machine"
    NOTHING = "nothing"

    @property
    def words(self) -> str:
        """Say for people whose word it is."""
        return _WHOSE_WORD[self]


_WHOSE_WORD = {
    JudgedOn.MACHINE: "the guest's own word",
    JudgedOn.CONFIG: "the evaluated config and what was built, not the guest",
    JudgedOn.BOTH: "the guest's own word, and the evaluated config",
    JudgedOn.OUTSIDE: "a look from outside, not the guest's word",
    JudgedOn.OUTSIDE_AND_MACHINE: "a look from outside, and the guest's own word",
    JudgedOn.NOTHING: "nothing: it was not judged",
}


@dataclass(slots=True)
class Evidence:
    """What a check saw, collected while it runs.

    :param expected: what had to hold, JSON-able.
    :param observed: what was found, JSON-able.
    :param attachments: name to text (a unit's journal, a ruleset, the console tail).
    :param judged_on: a value of :class:`JudgedOn`; empty for what the control's catalogue entry
        says, see :meth:`judge_on`.
    :param rests_on: what has to work for the verdict to be about its control.
    :param blames: what the check found broken; it explains findings that rest on it.
    :param remedy: what mends what was seen, in place of the control's own remedy; empty for that
        one.
    """

    expected: Any = None
    observed: Any = None
    judged_on: str = ""
    attachments: dict[str, str] = field(default_factory=dict)
    rests_on: list[Subject] = field(default_factory=list)
    blames: list[Subject] = field(default_factory=list)
    remedy: str = ""

    @property
    def written(self) -> Evidence:
        """The same with plain values: what a check saw may change after it, or be nothing that JSON has."""
        return dataclasses.replace(
            self,
            expected=_plain(self.expected),
            observed=_plain(self.observed),
            attachments=_plain(self.attachments),
        )

    def expect(self, expected: Any) -> Any:
        """Record what has to hold, and return it."""
        self.expected = expected
        return expected

    def observe(self, observed: Any) -> Any:
        """Record what was found, and return it."""
        self.observed = observed
        return observed

    def judge_on(self, where: str) -> None:
        """Say whose word the verdict rests on: ``judge_on("outside")``.

        :raises ValueError: if it is no value of :class:`JudgedOn`.
        """
        self.judged_on = JudgedOn(where).value

    def attach(self, name: str, text: str) -> None:
        """Keep `text` with the finding under `name`; only its last 64 KiB are kept."""
        self.attachments[name] = text[-_MAX_ATTACHMENT:]

    def rest_on(self, kind: str, *names: str) -> None:
        """Say what has to work for this check to judge its control: ``rest_on("unit",
        "ollama.service")``.

        Where a finding blames it, a failure of this check is that finding's echo.

        :raises ValueError: if there is no such kind, see :class:`pytest_nixos.subject.SubjectKind`.
        """
        self.rests_on += _subjects(kind, names)

    def blame(self, kind: str, *names: str) -> None:
        """Say what this check found broken: ``blame("unit", "ollama.service")``.

        :raises ValueError: if there is no such kind, see :class:`pytest_nixos.subject.SubjectKind`.
        """
        self.blames += _subjects(kind, names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Outcome of one control on one host.

    :param judged_on: a value of :class:`JudgedOn`.
    :param reason: why it failed, was not applicable, or was waived; one line.
    :param journal: what the machine logged while a behavioural check that failed ran, newest last:
        ``time_s``, ``unit``, ``source``, ``priority``, ``message``.
    :param rests_on: what has to work for the verdict to be about the control.
    :param blames: what it found broken.
    :param caused_by: controls whose findings explain this one, and ``machine`` where the machine's
        own failure does; empty for a cause. See :mod:`pytest_nixos.report.summary.causes`.
    :param explains: controls whose findings on the same host this one explains.
    :param pressure: how busy the machine that ran pytest was meanwhile, of what failed; see
        :class:`pytest_nixos.local.pace.Pressure`.
    :param against_baseline: of a failed one, where there is a baseline: ``new``, ``worse`` or
        ``known``.
    :param why: of one that failed: what is declared, what is true, what makes it so and what comes of
        it, in one paragraph.
    :param by_hand: a command that shows it on the host; it only reads.
    :param page: of the control, below the documentation's reference.
    :param places: where the options that decide it are set, the user's own files first.
    """

    control: str
    title: str
    suite: str
    host: str
    backend: str
    severity: Severity
    outcome: Outcome
    judged_on: str
    reason: str
    threat: str
    remedy: str
    expected: Any = None
    observed: Any = None
    attachments: Mapping[str, str] = field(default_factory=dict)
    references: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    journal: tuple[Mapping[str, Any], ...] = ()
    node_id: str = ""
    duration_s: float = 0.0
    rests_on: tuple[Subject, ...] = ()
    blames: tuple[Subject, ...] = ()
    caused_by: tuple[str, ...] = ()
    explains: tuple[str, ...] = ()
    pressure: Mapping[str, float | None] = field(default_factory=dict)
    places: tuple[Place, ...] = ()
    against_baseline: str = ""
    why: str = ""
    by_hand: str = ""
    page: str = ""

    @property
    def whose_word(self) -> str:
        """Say for people whose word the verdict rests on; a word that nobody knows is the
        guest's.
        """
        known = {where.value: where for where in JudgedOn}
        return known.get(self.judged_on, JudgedOn.MACHINE).words

    @property
    def failed(self) -> bool:
        """Whether the control is violated or could not be judged."""
        return self.outcome in (Outcome.FAILED, Outcome.ERROR)

    def to_json(self) -> dict[str, Any]:
        """Write the finding as plain JSON values; enums by name or value."""
        written = {name: getattr(self, name) for name in _FIELDS}
        written |= {
            "severity": self.severity.name,
            "outcome": self.outcome.value,
            "references": {standard: list(ids) for standard, ids in self.references.items()},
            "rests_on": [str(subject) for subject in self.rests_on],
            "blames": [str(subject) for subject in self.blames],
            "places": [place.to_json() for place in self.places],
            **{name: _plain(getattr(self, name)) for name in _NOT_PLAIN},
        }
        return written

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read back what :meth:`to_json` wrote."""
        return cls(
            **{
                **data,
                "severity": Severity[data["severity"]],
                "outcome": Outcome(data["outcome"]),
                "references": {k: tuple(v) for k, v in data["references"].items()},
                "journal": tuple(data.get("journal", ())),
                "rests_on": tuple(Subject.parse(s) for s in data.get("rests_on", ())),
                "blames": tuple(Subject.parse(s) for s in data.get("blames", ())),
                "caused_by": tuple(data.get("caused_by", ())),
                "explains": tuple(data.get("explains", ())),
                "places": tuple(Place.from_json(p) for p in data.get("places", ())),
            }
        )


_FIELDS = tuple(field.name for field in dataclasses.fields(Finding))
# Those that hold whatever a check gave, or tuples.
_NOT_PLAIN = ("expected", "observed", "attachments", "journal", "caused_by", "explains", "pressure")
_SCALARS = (str, int, float, type(None))


class Ledger:
    """Findings as JSON lines, each on disk before the next check runs, so that a crash loses
    nothing.

    :param path: file to append to, made private to its owner.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def append(self, finding: Finding) -> None:
        """Write one finding; one system call, so that a line is whole or not there.

        :raises OSError: if the disk is full.
        """
        line = json.dumps(finding.to_json()).encode() + b"\n"
        if os.write(self._fd, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @staticmethod
    def read(path: Path) -> tuple[Finding, ...]:
        """Read a ledger, ignoring a last line that a crash cut short, and any other that is no
        finding.
        """
        findings = []
        for line in path.read_bytes().splitlines():
            try:
                findings.append(Finding.from_json(json.loads(line)))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue
        return tuple(findings)


def _subjects(kind: str, names: Sequence[str]) -> list[Subject]:
    if SubjectKind(kind) is SubjectKind.MACHINE:
        return [MACHINE]
    if SubjectKind(kind) is SubjectKind.MEMORY:
        return [MEMORY]
    return [Subject(SubjectKind(kind), name) for name in dict.fromkeys(names)]


def _plain(value: Any) -> Any:
    """Reduce a value to what JSON and execnet can carry."""
    if isinstance(value, _SCALARS):
        return value
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=str)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    return str(value)
