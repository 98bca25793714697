"""The Markdown report: what a pipeline's page or a pull request shows of a run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from pytest_nixos.findings import Finding, Outcome
from pytest_nixos.local.text import one_line
from pytest_nixos.report.facts import RunFacts

__all__ = ["write_markdown"]

_MOST_CAUSES = 50
_LONGEST_CELL = 300
# With a backslash before it, each of these is itself (CommonMark 2.4); the colon, so that no address becomes a link.
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_COLUMNS = (
    (Outcome.FAILED, "failed"),
    (Outcome.ERROR, "not judged"),
    (Outcome.WAIVED, "waived"),
    (Outcome.NOT_APPLICABLE, "not applicable"),
    (Outcome.PASSED, "passed"),
)


def write_markdown(findings: Sequence[Finding], run: RunFacts) -> str:
    """Write a table of hosts, what stopped a host, and the causes, worst first."""
    lines = ["## NixOS hosts", "", *_hosts(findings, run), *_failures(run), *_causes(findings)]
    lines += ["", f"pytest-nixos {_text(run.plugin_version)}, {run.duration_s:.0f} s"]
    return "\n".join(lines) + "\n"


def _hosts(findings: Sequence[Finding], run: RunFacts) -> Iterator[str]:
    counts = Counter((finding.host, finding.outcome) for finding in findings)
    names = dict.fromkeys([*run.hosts, *(finding.host for finding in findings)])
    if not names:
        yield "No host was judged."
        return
    yield from _header("host", *(words for _, words in _COLUMNS))
    for name in names:
        yield _row(name, *(str(counts[name, outcome]) for outcome, _ in _COLUMNS))


def _failures(run: RunFacts) -> Iterator[str]:
    for name, facts in run.hosts.items():
        if failure := facts.get("failure"):
            yield from ("", f"**{_text(name)}**: {_text(facts.get('why') or failure)}")
    for reason in run.incomplete:
        yield from ("", f"**Not whole**: {_text(reason)}")


def _causes(findings: Sequence[Finding]) -> Iterator[str]:
    causes = [finding for finding in findings if finding.failed and not finding.caused_by]
    if not causes:
        return
    yield from ("", "### What to mend first", "")
    yield from _header("severity", "host", "control", "what is wrong", "where", "explains")
    for finding in causes[:_MOST_CAUSES]:
        yield _row(
            finding.severity.name,
            finding.host,
            f"{finding.control} {finding.title}",
            finding.reason,
            next((place.spot for place in finding.places if place.own), ""),
            ", ".join(finding.explains),
        )
    if (more := len(causes) - _MOST_CAUSES) > 0:
        yield from ("", f"and {more} more, see the other reports.")


def _header(*titles: str) -> Iterator[str]:
    yield _row(*titles)
    yield "|" + "---|" * len(titles)


def _row(*cells: str) -> str:
    return "| " + " | ".join(map(_text, cells)) + " |"


def _text(value: object) -> str:
    """Write what strangers wrote as the text that it is: no markup, no link, no cell of its own."""
    text = one_line(str(value))
    if len(text) > _LONGEST_CELL:
        text = text[: _LONGEST_CELL - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return _PUNCTUATION.sub(r"\\\1", text)
