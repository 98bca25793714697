"""What differs between the three stages of an upgrade test: the old system, the new one, and the
old one again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pytest_nixos.findings import Finding
from pytest_nixos.generations.upgrade_stage import Stage
from pytest_nixos.local.text import printable

__all__ = ["compare_stages", "packages_of", "upgrade_lines"]

_MOST_LINES = 12
_STORE_NAME = re.compile(r"^[0-9a-z]{32}-(?P<name>.+?)-(?P<version>\d[^-]*(?:-[0-9a-z.]+)*)$")


def packages_of(paths: Iterable[str]) -> dict[str, list[str]]:
    """Read package names and versions from the names of store paths; what has no version is left
    out.
    """
    found: dict[str, set[str]] = {}
    for path in paths:
        match = _STORE_NAME.match(path.rpartition("/")[2])
        if match:
            found.setdefault(match["name"], set()).add(match["version"])
    return {name: sorted(versions) for name, versions in sorted(found.items())}


def compare_stages(
    states: Mapping[Stage, Mapping[str, Any]], findings: Mapping[Stage, Sequence[Finding]]
) -> dict[str, Any]:
    """Compare the stages of one host; what is equal in all that were reached is left out.

    :param states: stage to what was seen in it: ``units``, ``ports``, ``packages``,
        ``closure_bytes``, ``toplevel``, ``release``.
    :param findings: stage to the findings made in it.
    :return: JSON-able; each difference lists the stages in order, ``None`` where a thing was not
        there.
    """
    reached = [stage for stage in Stage if stage in states]
    outcomes = {
        stage: {f"{f.control} {_item(f)}".strip(): f.outcome.value for f in findings.get(stage, ())}
        for stage in reached
    }
    return {
        "stages": [stage.value for stage in reached],
        "toplevels": [states[stage].get("toplevel") for stage in reached],
        "releases": [states[stage].get("release") for stage in reached],
        "closure_bytes": [states[stage].get("closure_bytes") for stage in reached],
        "findings": _differences([outcomes[stage] for stage in reached]),
        "units": _differences([states[stage].get("units", {}) for stage in reached]),
        "ports": _differences(
            [dict.fromkeys(states[stage].get("ports", ()), "open") for stage in reached]
        ),
        "packages": _differences([states[stage].get("packages", {}) for stage in reached]),
        "restored": _restored(states, outcomes),
        "way": states.get(Stage.NEW, {}).get("way"),
    }


def upgrade_lines(host: str, difference: Mapping[str, Any]) -> list[str]:
    """Write the comparison of one host for the terminal."""
    stages = " -> ".join(difference["stages"])
    sizes = " -> ".join(_mib(size) for size in difference["closure_bytes"])
    lines = [f"{printable(host)}: {stages}; closure {sizes}"]
    for kind in ("findings", "units", "ports", "packages"):
        rows = difference[kind]
        if not rows:
            continue
        lines.append(f"  {kind} that differ: {len(rows)}")
        for name, values in list(rows.items())[:_MOST_LINES]:
            lines.append(f"    {printable(name)}: {' -> '.join(_word(value) for value in values)}")
        if len(rows) > _MOST_LINES:
            lines.append(f"    and {len(rows) - _MOST_LINES} more, see the JSON report")
    lines += _way_lines(difference.get("way") or {})
    if difference["restored"] is not None:
        lines.append(
            "  after the rollback: as before"
            if not difference["restored"]
            else f"  after the rollback not as before: {', '.join(difference['restored'])}"
        )
    return lines


def _way_lines(way: Mapping[str, Any]) -> list[str]:
    """Tell how the new system was reached, and what a fresh boot of it has otherwise."""
    lines = []
    if way.get("refusal"):
        lines.append(
            "  upgraded by boot and reboot: the new system's pre-switch checks refuse a switch"
        )
        lines += [f"    | {printable(line)}" for line in way["refusal"].splitlines()[:_MOST_LINES]]
    if way.get("fresh_problem"):
        problem = printable(way["fresh_problem"].splitlines()[0])
        lines.append(f"  the new system does not boot by itself: {problem}")
    for name, reasons in (way.get("stale") or {}).items():
        lines.append(f"  {printable(name)} still runs what the old system gave it")
        lines += [f"    {printable(reason)}" for reason in reasons]
    for kind in ("units", "ports"):
        rows = way.get(kind) or {}
        if rows:
            lines.append(f"  {kind} that a fresh boot has otherwise: {len(rows)}")
        for name, values in list(rows.items())[:_MOST_LINES]:
            lines.append(
                f"    {printable(name)}: {' against '.join(_word(v) for v in values)} afresh"
            )
    if way.get("left"):
        names = ", ".join(printable(name) for name in way["left"])
        lines.append(f"  left to the next boot by design: {names}")
    return lines


def _differences(values: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = sorted({name for mapping in values for name in mapping})
    rows = {name: [mapping.get(name) for mapping in values] for name in names}
    return {name: row for name, row in rows.items() if any(cell != row[0] for cell in row)}


def _restored(
    states: Mapping[Stage, Mapping[str, Any]], outcomes: Mapping[Stage, Mapping[str, str]]
) -> list[str] | None:
    """Name what the rollback did not restore; ``None`` if it was not reached."""
    if not {Stage.OLD, Stage.BACK} <= states.keys():
        return None
    old, back = states[Stage.OLD], states[Stage.BACK]
    kinds = [kind for kind in ("toplevel", "units", "ports") if old.get(kind) != back.get(kind)]
    return kinds + (["findings"] if outcomes[Stage.OLD] != outcomes[Stage.BACK] else [])


def _item(finding: Finding) -> str:
    """Tell apart several items of one control, by what stands in brackets beside the host."""
    parameters = finding.node_id.rpartition("[")[2].rstrip("]")
    rest = parameters.removeprefix(finding.host).strip("-")
    return "" if rest in ("", finding.control) else rest


def _word(value: Any) -> str:
    if value is None:
        return "-"
    return printable(" ".join(value) if isinstance(value, list) else str(value))


def _mib(size: int | None) -> str:
    return "?" if size is None else f"{size / 2**20:.0f} MiB"
