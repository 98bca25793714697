"""Annotations of GitHub Actions: workflow commands, which a step prints to mark lines of the flake.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_nixos.findings import Finding, Severity
from pytest_nixos.local.text import one_line
from pytest_nixos.report.facts import RunFacts

__all__ = ["write_github"]

# GitHub shows ten of a kind for a step, and cuts messages of 4 KiB.
_MOST = 10
_LONGEST = 1000


def write_github(findings: Sequence[Finding], run: RunFacts) -> str:
    """Write an annotation for each cause, worst first, at the line of the flake that decides it.

    What is of HIGH or CRITICAL severity, or stopped a host, is an error; the rest are warnings.
    """
    causes = [finding for finding in findings if finding.failed and not finding.caused_by]
    errors = [finding for finding in causes if finding.severity >= Severity.HIGH]
    warnings = [finding for finding in causes if finding.severity < Severity.HIGH]
    lines = [
        *_stopped(run),
        *(_annotation("error", finding, run) for finding in errors[:_MOST]),
        *(_annotation("warning", finding, run) for finding in warnings[:_MOST]),
    ]
    return "".join(f"{line}\n" for line in lines)


def _stopped(run: RunFacts) -> Iterator[str]:
    for name, facts in run.hosts.items():
        if failure := facts.get("failure"):
            why = str(facts.get("why") or failure)
            yield f"::error title={_property(name)}::{_message(why)}"
    for reason in run.incomplete:
        yield f"::error title=Not whole::{_message(reason)}"


def _annotation(kind: str, finding: Finding, run: RunFacts) -> str:
    properties = [f"title={_property(f'{finding.host}: {finding.control} {finding.title}')}"]
    place = next((place for place in finding.places if place.own), None)
    if place is not None:
        folder = str(run.hosts.get(finding.host, {}).get("folder") or "")
        path = "/".join(part for part in (folder, place.file) if part)
        properties.insert(0, f"file={_property(path)}")
        if place.line is not None:
            properties.insert(1, f"line={place.line}")
    return f"::{kind} {','.join(properties)}::{_message(finding.reason or finding.title)}"


def _message(text: str) -> str:
    """Write a message as GitHub's own toolkit does; a line break would begin a command of its
    own.
    """
    return one_line(text)[:_LONGEST].replace("%", "%25")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
