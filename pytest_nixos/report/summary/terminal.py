"""The terminal summary: what became of each host, then what to mend first, at most a screen of it.

It is drawn by rich; where the terminal takes no colour it is plain text, whose lines are never
folded.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.local.pace import Pressure
from pytest_nixos.local.text import one_line, printable
from pytest_nixos.report.facts import RunFacts
from pytest_nixos.report.summary.causes import Cause, causes_of
from pytest_nixos.subject import MACHINE

__all__ = ["failure_lines", "print_summary"]

_MAX_VALUE = 400
_PLAN_VALUE = 160
_ATTACHMENT_LINES = 15
_JOURNAL_LINES = 8
_WARNING = 4
_SCREEN_LINES = 36
_REMEDY_LINES = 4
_EXPLAINED = 8
_PLAN_PLACES = 2
_WORDS = {
    Outcome.PASSED: "passed",
    Outcome.FAILED: "failed",
    Outcome.NOT_APPLICABLE: "not applicable",
    Outcome.WAIVED: "waived",
    Outcome.ERROR: "not judged",
}
_STYLES = {
    Severity.CRITICAL: "bold red",
    Severity.HIGH: "red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "cyan",
    Severity.STYLE: "dim",
}


def print_summary(
    console: Console, findings: Sequence[Finding], run: RunFacts, *, whole: bool = False
) -> None:
    """Print a table of hosts, then a plan: causes, the worst first, each with what it explains.

    Guest text is made printable.

    :param findings: as :func:`pytest_nixos.report.summary.causes.explained` gives them.
    :param whole: print the whole plan, with whose word each verdict rests on, and not only what
        fits a screen.
    """
    _print(console, _hosts(findings, run))
    for text in _offline(findings):
        _print(console, text)
    entries = [*_unjudged(findings, run), *_plan(findings, run, whole=whole)]
    if not entries:
        return
    causes = [f for f in findings if f.outcome is Outcome.FAILED and not f.caused_by]
    counts = _by_severity(causes)
    _print(console, Text(f"\nWhat to mend first{f' ({counts})' if counts else ''}:"))
    for text in _on_a_screen(entries, limit=None if whole else _SCREEN_LINES):
        _print(console, text)


def failure_lines(finding: Finding) -> list[str]:
    """Write one violated control for the place where pytest shows a failure, evidence tails
    included.
    """
    lines = [
        f"{finding.severity.name} {finding.control}: {finding.title}",
        printable(finding.reason),
    ]
    lines += _where(finding, most=len(finding.places))
    lines += [f"expected: {_value(finding.expected)}", f"observed: {_value(finding.observed)}"]
    for name, text in finding.attachments.items():
        tail = text.splitlines()[-_ATTACHMENT_LINES:]
        lines += [f"{printable(name)}:", *(f"  | {printable(line)}" for line in tail)]
    lines.append(f"judged on {finding.judged_on}: {finding.whose_word}")
    if busy := Pressure.from_json(finding.pressure).words:
        lines.append(f"meanwhile: {busy}")
    lines += _journal_lines(finding)
    if finding.threat:
        lines.append(f"risk:     {printable(finding.threat)}")
    lines += _labelled("remedy:   ", finding.remedy, most=None)
    if finding.by_hand:
        lines.append(f"by hand:  {printable(finding.by_hand)}")
    return lines


def _journal_lines(finding: Finding) -> list[str]:
    """Show the last warnings and errors; the report holds the rest."""
    told = [e for e in finding.journal if e["priority"] <= _WARNING][-_JOURNAL_LINES:]
    if not told:
        return []
    shown = (printable(f"{e['unit'] or e['source']}: {e['message']}") for e in told)
    return [
        f"warnings of the journal meanwhile ({len(finding.journal)} entries in the report):",
        *(f"  | {line[:_MAX_VALUE]}" for line in shown),
    ]


def _print(console: Console, renderable: RenderableType) -> None:
    # Lines stay whole: whoever reads them in a pipe looks for words, and a terminal wraps them
    # itself.
    console.print(renderable, soft_wrap=True, highlight=False, crop=False)


def _hosts(findings: Sequence[Finding], run: RunFacts) -> Table:
    """Return one row a host: how many controls had which outcome, and where the time went."""
    counts = {name: Counter[Outcome]() for name in run.hosts}
    for finding in findings:
        counts.setdefault(finding.host, Counter())[finding.outcome] += 1
    always = (Outcome.PASSED, Outcome.FAILED)
    shown = [o for o in _WORDS if o in always or any(c[o] for c in counts.values())]
    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    table.add_column("host", no_wrap=True)
    for outcome in shown:
        table.add_column(_WORDS[outcome], justify="right", no_wrap=True)
    table.add_column("seconds", no_wrap=True, overflow="ignore")
    for name, of_host in counts.items():
        cells = [Text(str(of_host[o] or "0"), style=_count_style(o, of_host[o])) for o in shown]
        table.add_row(Text(printable(name)), *cells, Text(_phases(run.hosts.get(name, {}))))
    return table


def _count_style(outcome: Outcome, count: int) -> str:
    if not count:
        return "dim"
    return {Outcome.PASSED: "green", Outcome.FAILED: "bold red", Outcome.ERROR: "bold red"}.get(
        outcome, ""
    )


def _phases(facts: Mapping[str, object]) -> str:
    phases = facts.get("phases_s")
    if not isinstance(phases, Mapping):
        return ""
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in phases.items())


def _offline(findings: Sequence[Finding]) -> list[Text]:
    """Say which units need the internet, and how much was not judged for them: they are neither
    right nor wrong.
    """
    lines = []
    for finding in findings:
        if finding.outcome is Outcome.NOT_APPLICABLE and finding.blames:
            more = len(finding.explains)
            told = f" ({_controls(more)} not judged for it)" if more else ""
            lines.append(Text(f"{printable(finding.host)}: {printable(finding.reason)}{told}"))
    return lines


def _unjudged(findings: Sequence[Finding], run: RunFacts) -> list[list[Text]]:
    """Return an entry for each host whose own failure kept controls from being judged, and no
    finding says so.
    """
    entries = []
    for name, facts in run.hosts.items():
        echoes = [f for f in findings if f.host == name and MACHINE.kind.value in f.caused_by]
        failure = str(facts.get("failure") or "")
        if not echoes or not failure:
            continue
        lines = failure.splitlines()
        at = [n for n, line in enumerate(lines) if line.strip().startswith("remedy:")]
        # The command of a remedy stands on a line of its own.
        remedy = [line.strip() for line in lines[at[0] :]] if at else []
        says = lines[: 2 if lines[0].endswith(":") else 1]
        entries.append(
            [
                Text(
                    f"{_controls(len(echoes))} not judged on {printable(name)}: {facts.get('why')}",
                    style="bold red",
                ),
                *(Text(f"     {printable(line)}") for line in says),
                *(Text(f"     {printable(line)}") for line in remedy[:_REMEDY_LINES]),
            ]
        )
    return entries


def _plan(findings: Sequence[Finding], run: RunFacts, *, whole: bool) -> list[list[Text]]:
    causes = {id(cause.finding): cause for cause in causes_of(findings)}
    first = [f for f in findings if f.failed and not f.caused_by]
    return [
        _cause_entry(number, causes[id(finding)], run, whole=whole)
        if id(finding) in causes
        else _broken_entry(number, finding)
        for number, finding in enumerate(first, 1)
    ]


def _cause_entry(number: int, cause: Cause, run: RunFacts, *, whole: bool) -> list[Text]:
    finding = cause.finding
    below = " (below --nixos-fail-on)" if finding.severity < Severity[run.fail_on] else ""
    head = Text(f"{number:>3}. ")
    head.append(finding.severity.name, style=_STYLES[finding.severity])
    head.append(f" {finding.control} [{printable(finding.host)}] {finding.title}{below}")
    lines = [f"     {printable(finding.reason)}"] if finding.reason else []
    lines += [f"     {line}" for line in _where(finding, most=_PLAN_PLACES)]
    lines += [f"     {line}" for line in _explains(cause)]
    if finding.expected is not None:
        lines.append(f"     expected: {_value(finding.expected, most=_PLAN_VALUE)}")
    if finding.observed is not None:
        lines.append(f"     observed: {_value(finding.observed, most=_PLAN_VALUE)}")
    if whole:
        lines.append(f"     judged on {finding.judged_on}: {finding.whose_word}")
    lines += [
        f"     {line}" for line in _labelled("remedy:   ", finding.remedy, most=_REMEDY_LINES)
    ]
    return [head, *(Text(line) for line in lines)]


def _where(finding: Finding, *, most: int) -> list[str]:
    """Return a line for each place that decides a finding, so that editors can jump to it."""
    shown = [printable(place.words) for place in finding.places[:most]]
    return [f"{'where:   ' if i == 0 else '         '} {line}" for i, line in enumerate(shown)]


def _explains(cause: Cause) -> list[str]:
    judged = [e for e in cause.echoes if e.outcome is Outcome.FAILED]
    unjudged = [e for e in cause.echoes if e.outcome is Outcome.ERROR]
    lines = []
    if judged:
        names = list(dict.fromkeys(e.control for e in judged))
        more = f", and {len(names) - _EXPLAINED} more" if len(names) > _EXPLAINED else ""
        others = "1 other" if len(names) == 1 else f"{len(names)} others"
        worse = f" (up to {cause.severity.name})" if cause.severity > cause.finding.severity else ""
        lines.append(f"explains {others}{worse}: {', '.join(names[:_EXPLAINED])}{more}")
    if unjudged:
        lines.append(f"{_controls(len(unjudged))} {printable(unjudged[-1].reason)}")
    return lines


def _broken_entry(number: int, finding: Finding) -> list[Text]:
    where = f"{finding.control} [{printable(finding.host)}]"
    return [
        Text(f"{number:>3}. not judged: {where} {finding.title}"),
        Text(f"     {printable(finding.reason)}"),
    ]


def _on_a_screen(entries: Sequence[Sequence[Text]], *, limit: int | None) -> list[Text]:
    """Return whole entries while they fit, then their first lines, then how many are left out."""
    shown: list[Text] = []
    for number, entry in enumerate(entries):
        behind = len(entries) - number - 1
        if limit is None or not shown or len(shown) + len(entry) + behind <= limit:
            shown += entry
        elif len(shown) < limit - 1 or (not behind and len(shown) < limit):
            shown.append(entry[0])
        else:
            shown.append(Text(f"     ... and {behind + 1} more: -v or a report shows them"))
            break
    return shown


def _labelled(label: str, text: str, *, most: int | None) -> list[str]:
    lines = [printable(line) for line in text.strip().splitlines()]
    if most is not None and len(lines) > most:
        lines = [*lines[: most - 1], "..."]
    return [f"{label if i == 0 else ' ' * len(label)}{line}" for i, line in enumerate(lines)]


def _value(value: Any, *, most: int = _MAX_VALUE) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = one_line(text)
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def _controls(count: int) -> str:
    return "1 control" if count == 1 else f"{count} controls"


def _by_severity(findings: Sequence[Finding]) -> str:
    by_severity = Counter(f.severity for f in findings)
    return ", ".join(
        f"{by_severity[severity]} {severity.name}"
        for severity in sorted(Severity, reverse=True)
        if by_severity[severity]
    )
