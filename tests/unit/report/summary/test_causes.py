"""Which finding explains which: causes first, echoes linked, and nothing explained without
reason.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_nixos.findings import Evidence, Finding, Outcome, Severity
from pytest_nixos.report.summary.causes import causes_of, explained
from pytest_nixos.subject import MACHINE, Subject

BOOT = Finding(
    control="BOOT-001",
    title="",
    suite="boot",
    host="web",
    backend="vm",
    severity=Severity.HIGH,
    outcome=Outcome.FAILED,
    judged_on="machine",
    reason="",
    threat="",
    remedy="",
)
A, B, SECRET = (Subject.parse(text) for text in ("unit:a.service", "unit:b.service", "secret:key"))


def made(control: str, **fields: object) -> Finding:
    return replace(BOOT, control=control, **fields)  # type: ignore[arg-type]


def links(*findings: Finding) -> dict[str, tuple[str, ...]]:
    return {f.control: f.caused_by for f in explained(findings)}


def test_what_rests_on_a_failed_unit_is_its_echo() -> None:
    cause = replace(BOOT, blames=(A,))
    echo = made("OLL-003", severity=Severity.CRITICAL, rests_on=(A,))
    other = made("OLL-009", rests_on=(B,))
    passed = made("OLL-004", rests_on=(A,), outcome=Outcome.PASSED)
    assert links(passed, echo, other, cause) == {
        "BOOT-001": (),
        "OLL-009": (),
        "OLL-003": ("BOOT-001",),
        "OLL-004": (),
    }


def test_causes_come_first_and_are_as_bad_as_what_they_explain() -> None:
    findings = explained(
        [
            made("Z-1", severity=Severity.CRITICAL),
            made("OLL-003", severity=Severity.CRITICAL, rests_on=(A,)),
            made("Y-1", severity=Severity.LOW),
            replace(BOOT, blames=(A,)),
            made("P-1", severity=Severity.CRITICAL, outcome=Outcome.PASSED),
        ]
    )
    assert [f.control for f in findings] == ["BOOT-001", "Z-1", "Y-1", "OLL-003", "P-1"]
    first = causes_of(findings)[0]
    assert first.severity is Severity.CRITICAL
    assert first.finding.explains == ("OLL-003",)
    assert [echo.control for echo in first.echoes] == ["OLL-003"]


def test_the_secret_that_a_unit_lacks_explains_the_failed_unit_and_its_echoes() -> None:
    found = links(
        replace(BOOT, severity=Severity.CRITICAL, blames=(A,)),
        made("SEC-001", severity=Severity.MEDIUM, blames=(SECRET, A)),
        made("OLL-003", rests_on=(A,)),
    )
    assert found == {"SEC-001": (), "BOOT-001": ("SEC-001",), "OLL-003": ("SEC-001",)}


def test_what_rests_on_what_an_echo_blames_goes_back_to_the_same_cause() -> None:
    found = links(
        made("UNIT-004", blames=(B,), rests_on=(A,)),
        made("NET-021", rests_on=(B,)),
        replace(BOOT, blames=(A,)),
    )
    assert found == {"BOOT-001": (), "UNIT-004": ("BOOT-001",), "NET-021": ("BOOT-001",)}


def test_a_finding_that_blames_more_than_another_explains_stays_a_cause() -> None:
    found = links(replace(BOOT, blames=(A, B)), made("SEC-001", blames=(SECRET, A)))
    assert found == {"BOOT-001": (), "SEC-001": ()}
    both = links(
        replace(BOOT, blames=(A, B)),
        made("SEC-001", blames=(SECRET, A)),
        made("SEC-002", blames=(SECRET, B)),
    )
    assert both["BOOT-001"] == ("SEC-001", "SEC-002")


def test_of_two_that_blame_the_same_unit_one_is_the_cause() -> None:
    assert links(made("BOOT-004", blames=(A,)), replace(BOOT, blames=(A,))) == {
        "BOOT-001": (),
        "BOOT-004": ("BOOT-001",),
    }


@pytest.mark.parametrize("outcome", [Outcome.PASSED, Outcome.WAIVED, Outcome.NOT_APPLICABLE])
def test_what_did_not_fail_explains_nothing(outcome: Outcome) -> None:
    cause = replace(BOOT, blames=(A,), outcome=outcome)
    assert links(cause, made("OLL-003", rests_on=(A,)))["OLL-003"] == ()


def test_another_host_explains_nothing() -> None:
    elsewhere = replace(BOOT, blames=(A,), host="db")
    assert links(elsewhere, made("OLL-003", rests_on=(A,)))["OLL-003"] == ()


def test_a_boot_that_failed_explains_all_that_was_not_judged() -> None:
    boot = made("BOOT-002", blames=(MACHINE,), severity=Severity.LOW)
    unjudged = made("A-1", outcome=Outcome.ERROR, rests_on=(MACHINE,))
    assert links(unjudged, boot, replace(BOOT, blames=(A,))) == {
        "BOOT-001": (),
        "BOOT-002": (),
        "A-1": ("BOOT-002",),
    }
    assert links(unjudged) == {"A-1": ("machine",)}


def test_a_check_that_broke_by_itself_is_no_echo() -> None:
    assert links(made("A-1", outcome=Outcome.ERROR)) == {"A-1": ()}


def test_no_finding_explains_itself_and_none_is_lost() -> None:
    findings = [
        made("A-1", blames=(A,), rests_on=(A, B)),
        made("A-2", blames=(B,), rests_on=(A,)),
        made("A-2", blames=(B,), rests_on=(A,), node_id="again"),
    ]
    done = explained(findings)
    assert len(done) == 3
    assert sum(not f.caused_by for f in done) >= 1
    assert all(f.control not in f.explains for f in done)


def test_a_misspelt_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unitt"):
        Evidence().rest_on("unitt", "a.service")


def test_subjects_survive_json() -> None:
    finding = replace(BOOT, blames=(A,), rests_on=(MACHINE,), caused_by=("x",), explains=("y",))
    assert Finding.from_json(finding.to_json()) == finding


def test_a_kill_for_want_of_memory_is_the_cause_of_the_unit_that_failed_by_it() -> None:
    killed = made("UNIT-012", blames=(Subject.parse("memory"), A))
    failed = made("BOOT-001", blames=(A,))
    answers = made("API-001", rests_on=(A,))
    assert links(failed, answers, killed) == {
        "UNIT-012": (),
        "BOOT-001": ("UNIT-012",),
        "API-001": ("UNIT-012",),
    }


def test_what_needs_the_internet_goes_back_to_the_finding_that_names_it() -> None:
    lacking = Subject.parse("internet:a.service")
    told = made("UNIT-011", outcome=Outcome.NOT_APPLICABLE, blames=(lacking,))
    folded = made("BOOT-002", outcome=Outcome.NOT_APPLICABLE, rests_on=(lacking,))
    other = made("BOOT-005", outcome=Outcome.NOT_APPLICABLE)
    broken = made("BOOT-001", blames=(B,), rests_on=(lacking,))

    found = {f.control: f for f in explained((told, folded, other, broken))}

    assert found["BOOT-002"].caused_by == ("UNIT-011",)
    assert found["UNIT-011"].explains == ("BOOT-002",)
    assert found["BOOT-005"].caused_by == ()
    # A unit that is broken for another reason is a cause of its own.
    assert found["BOOT-001"].caused_by == ()
    assert [cause.finding.control for cause in causes_of(list(found.values()))] == ["BOOT-001"]


def test_what_nothing_links_stays_as_it_is() -> None:
    passed = made("OLL-004", rests_on=(A,), outcome=Outcome.PASSED)
    assert explained([passed, replace(BOOT, blames=(A,))])[-1] is passed


def test_links_of_before_are_not_kept() -> None:
    before = made("OLL-003", rests_on=(A,), caused_by=("BOOT-001",), explains=("OLL-004",))
    (finding,) = explained([before])
    assert (finding.caused_by, finding.explains) == ((), ())
