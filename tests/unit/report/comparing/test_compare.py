"""Two runs against each other."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.report.comparing.compare import Verdict, compare, held_against

FAILED, PASSED, ERROR = Outcome.FAILED, Outcome.PASSED, Outcome.ERROR


def finding(control: str = "A-1", outcome: Outcome = FAILED, **fields: Any) -> Finding:
    values: dict[str, Any] = {
        "control": control,
        "title": control,
        "suite": "s",
        "host": "web",
        "backend": "vm",
        "severity": Severity.LOW,
        "outcome": outcome,
        "judged_on": "machine",
        "reason": "",
        "threat": "",
        "remedy": "",
        **fields,
    }
    return Finding(**values)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (None, finding(), Verdict.NEW),
        (finding(outcome=PASSED), finding(), Verdict.NEW),
        (finding(outcome=Outcome.WAIVED), finding(), Verdict.NEW),
        (finding(outcome=ERROR), finding(), Verdict.NEW),
        (finding(), finding(outcome=ERROR), Verdict.NEW),
        (finding(), finding(), Verdict.KNOWN),
        (finding(), finding(severity=Severity.HIGH), Verdict.WORSE),
        (finding(severity=Severity.HIGH), finding(), Verdict.KNOWN),
        (finding(observed=[22]), finding(observed=[22, 23]), Verdict.WORSE),
        (finding(observed=[22, 23]), finding(observed=[22]), Verdict.KNOWN),
        (finding(observed={"a": "no"}), finding(observed={"a": "no", "b": 1}), Verdict.WORSE),
        (
            finding(observed={"a": {"b": ["x"]}}),
            finding(observed={"a": {"b": ["y"]}}),
            Verdict.WORSE,
        ),
        (finding(observed="644"), finding(observed="666"), Verdict.WORSE),
        (finding(observed=203), finding(observed=204), Verdict.KNOWN),
        (finding(observed=None), finding(observed=None), Verdict.KNOWN),
        (finding(observed=3), finding(observed=["x"]), Verdict.WORSE),
    ],
)
def test_finding_is_held_against_the_earlier_one(
    before: Finding | None, after: Finding, verdict: Verdict
) -> None:
    assert held_against(after, before)[0] is verdict


def test_each_change_is_in_one_group() -> None:
    before = [
        finding("NEW", PASSED),
        finding("SAME"),
        finding("AGE", observed=1),
        finding("MENDED"),
        finding("GONE"),
        finding("MORE", observed=["a"]),
        finding("FINE", PASSED),
    ]
    after = [
        finding("NEW"),
        finding("SAME"),
        finding("AGE", observed=2),
        finding("MENDED", PASSED),
        finding("MORE", observed=["a", "b"]),
        finding("FINE", PASSED),
    ]
    found = compare(before, after)
    groups = {
        name: [change.of.control for change in getattr(found, name)]
        for name in ("new", "worse", "differs", "known", "mended", "unjudged")
    }
    assert groups == {
        "new": ["NEW"],
        "worse": ["MORE"],
        "differs": ["AGE"],
        "known": ["SAME"],
        "mended": ["MENDED"],
        "unjudged": ["GONE"],
    }
    assert found.is_worse and not compare(before, before).is_worse


def test_one_failure_of_a_control_hides_behind_no_pass_of_it() -> None:
    two = [finding(node_id="a", outcome=PASSED), finding(node_id="b")]
    assert [c.of.node_id for c in compare([], two).new] == ["b"]
    assert not compare(two, two).mended


def test_two_hosts_are_compared_under_one_name() -> None:
    found = compare([finding()], [finding(host="db")], hosts={"web": "db"})
    assert found.known and not found.new
