"""The HTML report: one file that needs nothing else, for people."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.local.text import printable_lines
from pytest_nixos.report.facts import RunFacts
from pytest_nixos.report.formats.html_data import html_data
from pytest_nixos.report.formats.matrix import by_standard, by_suite
from pytest_nixos.standards.frameworks import frameworks

__all__ = ["write_html"]

_MOST_VALUE = 20_000
_BOOT_CONTROL = "BOOT-005"
_MOST_UNITS = 12
_MOST_BOOTS = 20
_WITHOUT_SCRIPT = 300
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
# Of the text of all pictures together.
_MOST_PICTURES = 4 << 20


def write_html(findings: Sequence[Finding], run: RunFacts) -> str:
    """Write findings and run facts as one HTML page, in the order in which they are given.

    Findings are data that the page's own script shows as text; a content security policy allows that
    one script, named by its hash, and nothing of the network. Without scripts a table of what is to
    be mended is left.
    """
    # Loaded when a report is written: the engine costs every other run some 20 ms.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pytest_nixos.report.formats", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": _shown, "lines": printable_lines}
    script = resources.files("pytest_nixos.report.formats").joinpath("report.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    suites, standards = by_suite(findings), by_standard(findings)
    standard_names = sorted({name for cells in standards.values() for name in cells})
    failed = [f for f in findings if f.failed]
    screens, screens_left_out = _screens(run)
    return environment.get_template("report.html.j2").render(
        run=run,
        script=script,
        script_hash=f"sha256-{digest}",
        data=html_data(findings),
        hosts=[_host(name, facts, findings) for name, facts in sorted(run.hosts.items())],
        bars=_bars(failed, list(run.hosts)),
        screens=screens,
        screens_left_out=screens_left_out,
        suites=suites,
        suite_names=sorted({suite for cells in suites.values() for suite in cells}),
        standards=standards,
        standard_names=standard_names,
        evidence_only=[name for name in standard_names if name in frameworks()],
        outcomes=list(Outcome),
        severities=sorted(Severity, reverse=True),
        worst=Counter(f.severity for f in failed),
        failed=failed[:_WITHOUT_SCRIPT],
        failed_count=len(failed),
        boots=[f for f in findings if f.control == _BOOT_CONTROL and _is_boot(f.observed)][
            :_MOST_BOOTS
        ],
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


def _screens(run: RunFacts) -> tuple[list[Mapping[str, str]], int]:
    """Return the pictures that a page has room for, and how many it has not."""
    pictures: list[Mapping[str, str]] = []
    room, left_out = _MOST_PICTURES, 0
    for name, facts in sorted(run.hosts.items()):
        of_host: Any = facts.get("screens", ())
        for screen in of_host:
            if not _BASE64.fullmatch(screen["png"]):
                continue
            if len(screen["png"]) > room:
                left_out += 1
                continue
            room -= len(screen["png"])
            pictures.append({"host": name, **screen})
    return pictures, left_out


def _bars(failed: Sequence[Finding], hosts: Sequence[str]) -> list[dict[str, Any]]:
    """Return a bar a host: parts by severity, in per cent of the longest."""
    counts = {name: Counter[Severity]() for name in hosts}
    for finding in failed:
        counts.setdefault(finding.host, Counter())[finding.severity] += 1
    longest = max((c.total() for c in counts.values()), default=0) or 1
    bars = []
    for name, of_host in sorted(counts.items()):
        at = 0.0
        parts = []
        for severity in sorted(Severity, reverse=True):
            width = 100 * of_host[severity] / longest
            if width:
                parts.append({"severity": severity.name, "at": at, "width": width})
            at += width
        bars.append(
            {
                "host": name,
                "parts": parts,
                "told": ", ".join(
                    f"{of_host[s]} {s.name}" for s in sorted(Severity, reverse=True) if of_host[s]
                )
                or "nothing to mend",
            }
        )
    return bars


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
