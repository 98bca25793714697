"""The HTML report: one file that needs nothing else, for people."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.local.pace import Pressure
from pytest_nixos.local.text import printable_lines
from pytest_nixos.report.facts import RunFacts

__all__ = ["write_html"]

_MOST_VALUE = 20_000
_BOOT_CONTROL = "BOOT-005"
_MOST_UNITS = 12


def write_html(findings: Sequence[Finding], run: RunFacts) -> str:
    """Write findings and run facts as one HTML page without scripts, in the order in which they
    are given.

    Guest text is escaped by the template engine and made printable before.
    """
    # Loaded when a report is written: the engine costs every other run some 20 ms.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pytest_nixos.report", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "shown": _shown,
        "lines": printable_lines,
        "clock": _clock,
        "pressed": lambda shares: Pressure.from_json(shares).words,
    }
    return environment.get_template("report.html.j2").render(
        run=run,
        hosts=[_host(name, facts, findings) for name, facts in sorted(run.hosts.items())],
        outcomes=list(Outcome),
        severities=sorted(Severity, reverse=True),
        worst=Counter(f.severity for f in findings if f.failed),
        findings=findings,
        boots=[f for f in findings if f.control == _BOOT_CONTROL and _is_boot(f.observed)],
        scale=_boot_scale,
        most_units=_MOST_UNITS,
    )


def _host(
    name: str, facts: Mapping[str, object], findings: Sequence[Finding]
) -> Mapping[str, object]:
    return {
        "name": name,
        "facts": facts,
        "counts": Counter(f.outcome for f in findings if f.host == name),
    }


def _is_boot(observed: object) -> bool:
    return isinstance(observed, Mapping) and {"phases", "slowest", "seconds"} <= set(observed)


def _boot_scale(observed: Mapping[str, Any]) -> float:
    """Return per cent a second, so that the longest bar fills the line."""
    longest = max((unit["at"] for unit in observed["slowest"]), default=0.0)
    return 100.0 / max(float(observed["seconds"]), float(longest), 0.001)


def _shown(value: object) -> str:
    text = (
        value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False, indent=2, default=str)
    )
    return printable_lines(text if len(text) <= _MOST_VALUE else f"{text[:_MOST_VALUE]}...")


def _clock(time_s: float) -> str:
    return dt.datetime.fromtimestamp(time_s, tz=dt.UTC).strftime("%H:%M:%S")
