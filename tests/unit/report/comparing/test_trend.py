"""Findings over time."""

from __future__ import annotations

from pathlib import Path

from pytest_nixos.findings import Finding, Outcome
from pytest_nixos.report.comparing.saved import SavedReport
from pytest_nixos.report.comparing.trend import trend_html, trend_points
from tests.unit.report.comparing.test_compare import finding


def run(day: int, *findings: Finding, boot: float | None = None) -> SavedReport:
    hosts = {"web": {"phases_s": {} if boot is None else {"boot": boot}}}
    return SavedReport(
        path=Path(f"/r/{day}.json"),
        run={"started_at": f"2026-11-{day:02}T00:00:00+00:00", "hosts": hosts},
        findings=findings,
    )


def test_runs_stand_in_order_of_time_and_tell_what_came_and_went() -> None:
    points = trend_points(
        [
            run(2, finding("A", Outcome.PASSED), finding("B"), boot=3.5),
            run(1, finding("A"), finding("B", Outcome.PASSED)),
            run(3, finding("A", Outcome.PASSED), finding("B"), finding("NEW CONTROL")),
        ]
    )["web"]
    assert [(p.path, p.new, p.gone, p.boot_s) for p in points] == [
        ("1.json", 0, 0, None),
        ("2.json", 1, 1, 3.5),
        ("3.json", 0, 0, None),
    ], "what an earlier profile did not judge is not new"
    assert [p.failed.total() for p in points] == [1, 1, 2]


def test_page_draws_a_bar_a_run_and_escapes_names() -> None:
    page = trend_html(trend_points([run(1, finding("A")), run(2, finding("A"))]))
    assert page.count("<rect") == 2 and "default-src 'none'" in page
    evil = {"<script>x</script>": trend_points([run(1, finding("A"))])["web"]}
    assert "<script>" not in trend_html(evil)
