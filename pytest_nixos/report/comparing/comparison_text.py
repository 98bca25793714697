"""A comparison of two runs as lines of text, as JSON and as one HTML page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_nixos.local.text import printable
from pytest_nixos.report.comparing.compare import Change, Comparison

__all__ = ["GROUPS", "comparison_html", "comparison_json", "comparison_lines"]

Json = Any
#: Groups of a comparison in the order in which they matter, each with its heading.
GROUPS: Mapping[str, str] = {
    "new": "new",
    "worse": "worse",
    "differs": "still failed, with another value",
    "unjudged": "failed before, not judged in the later run",
    "mended": "went away",
    "known": "still failed as before",
}


def comparison_lines(
    found: Comparison, facts: Mapping[str, Sequence[str]] | None = None, *, known: bool = False
) -> Iterator[str]:
    """Yield a comparison as people read it.

    :param facts: further differences by heading (units, ports), a line each.
    :param known: list what is as before too, and not only count it.
    """
    for name, heading in GROUPS.items():
        changes: tuple[Change, ...] = getattr(found, name)
        if not changes:
            continue
        yield f"{heading}: {len(changes)}"
        if name != "known" or known:
            yield from (f"  {_told(change)}" for change in changes)
    for heading, lines in (facts or {}).items():
        if lines:
            yield f"{heading}:"
            yield from (f"  {printable(line)}" for line in lines)
    if not any(getattr(found, name) for name in GROUPS) and not any((facts or {}).values()):
        yield "no difference"


def comparison_json(found: Comparison, facts: Mapping[str, Sequence[str]]) -> str:
    """Write a comparison as a JSON document."""
    document: dict[str, Json] = {
        name: [_plain(change) for change in getattr(found, name)] for name in GROUPS
    }
    return json.dumps({"version": 1, **document, "facts": dict(facts)}, indent=2) + "\n"


def comparison_html(found: Comparison, facts: Mapping[str, Sequence[str]], *, title: str) -> str:
    """Write a comparison as one HTML page without scripts."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pytest_nixos.report.comparing", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = printable
    groups = [(name, heading, getattr(found, name)) for name, heading in GROUPS.items()]
    return environment.get_template("comparison.html.j2").render(
        title=title, groups=groups, facts=facts
    )


def _told(change: Change) -> str:
    finding = change.of
    why = f" ({printable(change.why)})" if change.why else ""
    reason = printable(finding.reason)
    return (
        f"{finding.severity.name} {finding.control} [{printable(finding.host)}] {finding.title}{why}"
        + (f": {reason}" if reason and change.after is not None and finding.failed else "")
    )


def _plain(change: Change) -> dict[str, Json]:
    finding = change.of
    return {
        "control": finding.control,
        "host": finding.host,
        "title": finding.title,
        "severity": finding.severity.name,
        "why": change.why,
        "before": None if change.before is None else change.before.outcome.value,
        "after": None if change.after is None else change.after.outcome.value,
        "reason": finding.reason,
    }
