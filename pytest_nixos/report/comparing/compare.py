"""Two runs against each other: what is new, worse, changed, mended; pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from pytest_nixos.findings import Finding, Outcome, Severity

__all__ = ["Change", "Comparison", "Verdict", "compare", "held_against"]

Json = Any
Key = tuple[str, str]


class Verdict(enum.Enum):
    """How a finding stands to that of an earlier run."""

    NEW = "new"
    WORSE = "worse"
    KNOWN = "known"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One control of one host in both runs; one side is ``None`` where it was not judged there.

    :param why: what is worse, or differs, in one line.
    """

    before: Finding | None
    after: Finding | None
    why: str = ""

    @property
    def of(self) -> Finding:
        """The finding that it is told of: that of the later run, if there is one."""
        found = self.after or self.before
        assert found is not None
        return found


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the findings between two runs.

    :param new: failed or not judged now, and neither before.
    :param worse: failed in both runs, with more that is wrong or a greater severity.
    :param differs: failed in both, with another value that is neither better nor worse for certain.
    :param known: failed in both alike.
    :param mended: failed before, and passes, is waived or does not apply now.
    :param unjudged: failed before, and was not judged now: nobody knows.
    """

    new: tuple[Change, ...]
    worse: tuple[Change, ...]
    differs: tuple[Change, ...]
    known: tuple[Change, ...]
    mended: tuple[Change, ...]
    unjudged: tuple[Change, ...]

    @property
    def is_worse(self) -> bool:
        """Whether anything is new or worse."""
        return bool(self.new or self.worse)


def held_against(finding: Finding, before: Finding | None) -> tuple[Verdict, str]:
    """Say how a finding that failed stands to that of the same control and host in an earlier run,
    and why.

    What could not be judged is always new: that it failed before excuses no machine that breaks
    now.
    """
    if before is None or before.outcome is not Outcome.FAILED:
        return Verdict.NEW, "" if before is None else f"was {before.outcome.value}"
    if finding.outcome is Outcome.ERROR:
        return Verdict.NEW, "was judged before"
    if finding.severity > before.severity:
        return Verdict.WORSE, f"was {before.severity.name}"
    more = _more(before.observed, finding.observed)
    if more:
        shown = ", ".join(more[:5]) + (f" and {len(more) - 5} more" if len(more) > 5 else "")
        return Verdict.WORSE, f"more than before: {shown}"
    if before.observed != finding.observed:
        return Verdict.KNOWN, f"was {_short(before.observed)}"
    return Verdict.KNOWN, ""


def compare(
    before: Iterable[Finding], after: Iterable[Finding], *, hosts: Mapping[str, str] | None = None
) -> Comparison:
    """Compare the findings of two runs.

    :param hosts: name of a host in the earlier run to its name in the later one, where two hosts are
        compared.
    """
    names = hosts or {}
    old = _by_key(before, names)
    now = _by_key(after, {})
    groups: dict[str, list[Change]] = {name: [] for name in Comparison.__struct_fields__}
    for key, finding in now.items():
        if not finding.failed:
            continue
        verdict, why = held_against(finding, old.get(key))
        group = "differs" if verdict is Verdict.KNOWN and why else verdict.value
        groups[group].append(Change(before=old.get(key), after=finding, why=why))
    for key, finding in old.items():
        later = now.get(key)
        if finding.outcome is not Outcome.FAILED or (later is not None and later.failed):
            continue
        why = later.outcome.value if later is not None else ""
        groups["mended" if later is not None else "unjudged"].append(
            Change(before=finding, after=later, why=why)
        )
    return Comparison(**{name: tuple(sorted(g, key=_rank)) for name, g in groups.items()})


def _by_key(findings: Iterable[Finding], names: Mapping[str, str]) -> dict[Key, Finding]:
    """Keep one finding a control and host: one that failed counts before one that did not."""
    found: dict[Key, Finding] = {}
    for finding in findings:
        key = (names.get(finding.host, finding.host), finding.control)
        if key not in found or (finding.failed and not found[key].failed):
            found[key] = finding
    return found


def _rank(change: Change) -> tuple[object, ...]:
    finding = change.of
    severity: Severity = finding.severity
    return -severity, finding.host, finding.control


def _more(before: Json, after: Json, path: str = "") -> list[str]:
    """Return what `after` holds more than `before`: members, keys, and texts that changed.

    A number that changed (an age, a size) is not told to be worse: which way is worse, only the
    control knows.
    """
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return [
            found
            for key, value in after.items()
            for found in (
                _more(before[key], value, f"{path}{key} ") if key in before else [f"{path}{key}"]
            )
        ]
    if isinstance(before, Sequence) and isinstance(after, Sequence) and not isinstance(after, str):
        known = {str(item) for item in before} if not isinstance(before, str) else {before}
        return [f"{path}{_short(item)}" for item in after if str(item) not in known]
    if isinstance(after, str) and isinstance(before, str) and after != before:
        return [f"{path}{_short(after)}"]
    if type(before) is not type(after) and after is not None and before is not None:
        return [f"{path}{_short(after)}"]
    return []


def _short(value: Json) -> str:
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
