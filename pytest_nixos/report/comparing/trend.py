"""A folder of reports as one page: how the findings of each host went over time; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.local.text import printable
from pytest_nixos.report.comparing.compare import compare
from pytest_nixos.report.comparing.saved import SavedReport

__all__ = ["Point", "trend_html", "trend_points"]

_WIDTH = 720.0
_HEIGHT = 160.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One host in one run.

    :param failed: findings that failed or could not be judged, by severity.
    :param new: of them, those that were not there in the host's run before.
    :param gone: findings of the run before that went away.
    :param boot_s: seconds, where the run tells them.
    """

    started_at: str
    path: str
    failed: Counter[Severity]
    passed: int
    new: int
    gone: int
    boot_s: float | None


def trend_points(reports: Sequence[SavedReport]) -> dict[str, list[Point]]:
    """Return the points of each host, oldest first.

    Profiles may differ between runs: only what both runs judged counts as new or gone.
    """
    points: dict[str, list[Point]] = {}
    before: dict[str, list[Finding]] = {}
    for report in sorted(reports, key=lambda r: r.started_at):
        for host, facts in report.hosts.items():
            now = [f for f in report.findings if f.host == host]
            earlier = before.get(host, now)
            judged = {f.control for f in earlier}
            change = compare(earlier, [f for f in now if f.control in judged])
            boot = (facts.get("phases_s") or {}).get("boot")
            points.setdefault(host, []).append(
                Point(
                    started_at=report.started_at,
                    path=report.path.name,
                    failed=Counter(f.severity for f in now if f.failed),
                    passed=sum(f.outcome is Outcome.PASSED for f in now),
                    new=len(change.new) + len(change.worse),
                    gone=len(change.mended),
                    boot_s=boot if isinstance(boot, int | float) else None,
                )
            )
            before[host] = now
    return points


def trend_html(points: dict[str, list[Point]]) -> str:
    """Write the points as one HTML page without scripts: a picture and a table a host."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pytest_nixos.report.comparing", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = printable
    return environment.get_template("trend.html.j2").render(
        hosts=[_drawn(host, of_host) for host, of_host in sorted(points.items())],
        severities=sorted(Severity, reverse=True),
        width=_WIDTH,
        height=_HEIGHT,
    )


def _drawn(host: str, points: Sequence[Point]) -> dict[str, Any]:
    """Return a host's bars: one a run, stacked by severity, as high as its findings."""
    most = max((point.failed.total() for point in points), default=0) or 1
    step = _WIDTH / max(len(points), 1)
    bars = []
    for number, point in enumerate(points):
        at = 0.0
        for severity in sorted(Severity, reverse=True):
            height = point.failed[severity] / most * _HEIGHT
            if height:
                bars.append(
                    {
                        "severity": severity.name,
                        "x": number * step,
                        "y": _HEIGHT - at - height,
                        "width": step * 0.8,
                        "height": height,
                    }
                )
            at += height
    last = points[-1].failed.total()
    return {
        "host": host,
        "points": points,
        "bars": bars,
        "told": f"{points[0].failed.total()} findings to mend in the first run, {last} in the last",
    }
