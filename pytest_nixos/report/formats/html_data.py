"""The findings as the HTML page's script reads them: each text once, controls apart from hosts."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.local.pace import Pressure
from pytest_nixos.local.text import printable, printable_lines

__all__ = ["html_data"]

Json = Any
_MOST_VALUE = 20_000
#: Of so many findings that failed, a page holds the evidence whole; of more, the beginnings.
_MANY = 2_000
_MOST_VALUE_OF_MANY = 1_000
_MOST_JOURNAL = 200
_WARNING = 4
_NONE = -1


def html_data(findings: Sequence[Finding]) -> str:
    """Return JSON that holds no character that HTML gives a meaning; guest text is made printable.

    Of more than 2,000 findings that failed, long evidence is cut and attachments and journals are
    left to the JSON report, so that a page of 100 hosts stays below 15 MB.
    """
    many = sum(f.failed for f in findings) > _MANY
    pool = _Pool(_MOST_VALUE_OF_MANY if many else _MOST_VALUE)
    controls: dict[str, int] = {}
    told: list[Json] = []
    hosts: dict[str, int] = {}
    outcomes = list(Outcome)
    severities = sorted(Severity)
    rows: list[list[int]] = []
    details: list[dict[str, Json]] = []
    for finding in findings:
        # A profile tunes severities for a run as a whole, so that a control has one.
        if finding.control not in controls:
            controls[finding.control] = len(told)
            told.append(_control(finding, severities))
        host = hosts.setdefault(printable(finding.host), len(hosts))
        detail = _detail(finding, pool, whole=not many)
        rows.append(
            [
                controls[finding.control],
                host,
                outcomes.index(finding.outcome),
                pool.of(finding.reason),
                len(details) if detail else _NONE,
            ]
        )
        if detail:
            details.append(detail)
    document = {
        "controls": told,
        "hosts": list(hosts),
        "outcomes": [outcome.value for outcome in outcomes],
        "severities": [severity.name for severity in severities],
        "strings": pool.texts,
        "rows": rows,
        "details": details,
    }
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=True)
    # Inside a JSON text these stand in strings alone.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _Pool:
    """Texts, each kept once."""

    def __init__(self, most: int) -> None:
        self.texts: list[str] = []
        self._known: dict[str, int] = {}
        self._most = most

    def of(self, value: Json) -> int:
        """Return the number of a text, -1 for none."""
        if value is None or value == "":
            return _NONE
        text = (
            value
            if isinstance(value, str)
            else json.dumps(value, ensure_ascii=False, indent=2, default=str)
        )
        text = printable_lines(text if len(text) <= self._most else f"{text[: self._most]}...")
        if text not in self._known:
            self._known[text] = len(self.texts)
            self.texts.append(text)
        return self._known[text]


def _control(finding: Finding, severities: Sequence[Severity]) -> list[Json]:
    references = "; ".join(
        f"{standard} {', '.join(ids)}" for standard, ids in finding.references.items()
    )
    return [
        finding.control,
        printable(finding.title),
        finding.suite,
        severities.index(finding.severity),
        printable(finding.threat),
        printable(references),
    ]


def _detail(finding: Finding, pool: _Pool, *, whole: bool) -> dict[str, Json]:
    """Return what an entry shows beside its reason; of one that passed only what was observed."""
    if not finding.failed and finding.outcome is not Outcome.WAIVED:
        if not whole or finding.observed is None:
            return {}
        return {"observed": pool.of(finding.observed), "judged": pool.of(finding.judged_on)}
    numbers = {
        "why": pool.of(finding.why or finding.reason),
        "expected": pool.of(finding.expected),
        "observed": pool.of(finding.observed),
        "remedy": pool.of(finding.remedy),
        "hand": pool.of(finding.by_hand),
    }
    detail: dict[str, Json] = {name: n for name, n in numbers.items() if n != _NONE}
    detail["judged"] = pool.of(f"{finding.judged_on}: {finding.whose_word}")
    if meanwhile := Pressure.from_json(finding.pressure).words:
        detail["meanwhile"] = pool.of(meanwhile)
    if finding.places:
        detail["places"] = [[pool.of(p.spot), pool.of(p.words)] for p in finding.places]
    if finding.caused_by:
        detail["causes"] = list(finding.caused_by)
    if finding.explains:
        detail["explains"] = list(finding.explains)
    if finding.against_baseline:
        detail["against"] = finding.against_baseline
    if whole:
        detail |= _evidence(finding, pool)
    return detail


def _evidence(finding: Finding, pool: _Pool) -> dict[str, Json]:
    found: dict[str, Json] = {}
    if finding.attachments:
        attached: Mapping[str, str] = finding.attachments
        found["attached"] = [[pool.of(name), pool.of(text)] for name, text in attached.items()]
    if finding.journal:
        found["journal"] = [
            [
                _clock(entry["time_s"]),
                pool.of(entry["unit"] or entry["source"]),
                pool.of(entry["message"]),
                int(entry["priority"] <= _WARNING),
            ]
            for entry in finding.journal[-_MOST_JOURNAL:]
        ]
    return found


def _clock(time_s: float) -> str:
    return dt.datetime.fromtimestamp(time_s, tz=dt.UTC).strftime("%H:%M:%S")
