"""Why a unit was never started, and which ones nothing wants for a slip of the pen."""

from __future__ import annotations

from msgspec.structs import replace

from checks.units.idle import (
    Misspelt,
    misspelt_wanting,
    requiring_remedy,
    start_them,
    why_idle,
)
from checks.units.triggers import started_by_nothing, trigger_of_missing
from pytest_nixos import Unit
from pytest_nixos.observe.systemd.unit import UnitState
from tests.unit.standards.samples import sample_unit

NOT_FOUND = UnitState(name="", properties={"LoadState": "not-found"})
TARGET = UnitState(name="multi-user.target", properties={"LoadState": "loaded"})


def state(name: str, **properties: str) -> UnitState:
    return UnitState(name=name, properties={"LoadState": "loaded", **properties})


def unit(name: str, **settings: str) -> Unit:
    return replace(sample_unit(name), settings={"Unit": {k: (v,) for k, v in settings.items()}})


def test_a_conflict_with_what_runs_in_either_direction() -> None:
    declared = {
        "a.service": unit("a.service"),
        "b.service": unit("b.service", Conflicts="a.service"),
    }
    states = {
        "a.service": state("a.service"),
        "b.service": state("b.service", ActiveState="active"),
    }
    assert why_idle("a.service", declared, states, []) == "it conflicts with b.service, which runs"
    states = {
        "b.service": state("b.service"),
        "a.service": state("a.service", ActiveState="active"),
    }
    assert why_idle("b.service", declared, states, []) == "it conflicts with a.service, which runs"
    states["a.service"] = state("a.service")
    assert why_idle("b.service", declared, states, []) == ""


def test_an_assertion_that_does_not_hold() -> None:
    declared = {"a.service": unit("a.service", AssertPathExists="/nowhere")}
    checked = state("a.service", AssertTimestampMonotonic="7", AssertResult="no")
    assert "AssertPathExists=/nowhere" in why_idle(
        "a.service", declared, {"a.service": checked}, []
    )
    never = state("a.service", AssertTimestampMonotonic="0", AssertResult="no")
    assert why_idle("a.service", declared, {"a.service": never}, []) == ""


def test_a_unit_that_it_requires_and_nobody_has() -> None:
    declared = {name: unit(name) for name in ("a.service", "postgresql.service")}
    said = ["Failed to create a.service/start: Unit postgresq.service not found."]
    why = why_idle("a.service", declared, {"a.service": state("a.service")}, said)
    assert why == "it requires postgresq.service, which is not there (meant: postgresql.service?)"


def wanted(*names: str, **properties: str) -> dict[str, list[Misspelt]]:
    declared = {"a.service": replace(unit("a.service"), wanted_by=names)}
    # systemd is not asked for what cannot be a unit's name.
    gone = {n: NOT_FOUND for n in names if n.endswith((".target", ".service"))}
    states = {**gone, "a.service": state("a.service", **properties), TARGET.name: TARGET}
    states["backup-1.service"] = state("backup-1.service")
    states["graphical.target"] = state("graphical.target")
    return {name: list(slips) for name, slips in misspelt_wanting(declared, states).items()}


def test_a_target_that_is_misspelt() -> None:
    slip = Misspelt("multi-user.targt", "multi-user.target")
    assert wanted("multi-user.targt") == {"a.service": [slip]}
    other = Misspelt("multiuser.target", "multi-user.target")
    assert wanted("multiuser.target") == {"a.service": [other]}
    assert start_them({"a.service": [slip]}, ["b.service"]).splitlines() == [
        'systemd.services."a".wantedBy = lib.mkForce [ "multi-user.target" ];',
        "# b.service: give it what it needs: systemctl status b.service",
    ]


def test_a_target_of_systemds_own_that_nothing_else_names() -> None:
    assert wanted("timer.target") == {"a.service": [Misspelt("timer.target", "timers.target")]}


def test_a_target_with_the_suffix_of_another_unit() -> None:
    slip = Misspelt("multi-user.service", "multi-user.target")
    assert wanted("multi-user.service") == {"a.service": [slip]}


def test_a_target_that_only_other_hosts_have_is_no_slip() -> None:
    assert wanted("display-manager.service") == {}
    assert wanted("backup-2.service") == {}  # the host has backup-1.service
    assert wanted("graphical-session.target") == {}
    assert wanted("multi-user.target") == {}
    assert wanted() == {}


def test_what_something_starts_or_has_run_is_not_told() -> None:
    assert wanted("multi-user.targt", TriggeredBy="a.timer") == {}
    assert wanted("multi-user.targt", InactiveExitTimestampMonotonic="7") == {}


def test_a_requirement_that_is_misspelt_is_mended_wherever_it_stands() -> None:
    names = {
        "a.service": unit("a.service", Requires="db-init.service x.target", After="db-init.service")
    }
    names |= {"initdb.service": unit("initdb.service"), "dbinit.service": unit("dbinit.service")}
    said = ["Failed to create a.service/start: Unit db-init.service not found."]
    assert requiring_remedy("a.service", names, said).splitlines() == [
        'systemd.services."a".requires = lib.mkForce [ "dbinit.service" "x.target" ];',
        'systemd.services."a".after = lib.mkForce [ "dbinit.service" ];',
    ]
    assert requiring_remedy("a.service", names, []) == ""


def test_what_a_timer_or_socket_should_start() -> None:
    declared = ["prune.service", "chatd.service", "twin.service", "twin.socket", "a@.service"]
    assert trigger_of_missing(sample_unit("prune.timer"), "prune-old.service", declared) == (
        'systemd.timers."prune".timerConfig.Unit = lib.mkForce "prune.service";'
    )
    assert trigger_of_missing(sample_unit("chat.socket"), "chat.service", declared) == (
        'systemd.sockets."chat".socketConfig.Service = lib.mkForce "chatd.service";'
    )
    refused = trigger_of_missing(sample_unit("twin.socket"), "twin.service", declared)
    assert refused.startswith("# twin.socket starts twin.service, which is declared and not loaded")
    # That both are services is no likeness.
    nothing = trigger_of_missing(sample_unit("inbox.path"), "inbox.service", declared)
    assert nothing.startswith("# inbox.path starts inbox.service: declare it")


def test_a_timer_that_nothing_starts() -> None:
    def timer(name: str = "report.timer", section: str = "Timer") -> Unit:
        return replace(sample_unit(name), settings={section: {"OnCalendar": ("weekly",)}})

    idle = state("report.timer", ActiveState="inactive")
    assert started_by_nothing(timer(), idle)
    for changed in (
        {"WantedBy": "timers.target"},
        {"ActiveState": "active"},
        {"LoadState": "masked"},
    ):
        properties = {**idle.properties, **changed}
        other = UnitState(name="report.timer", properties=properties)
        assert not started_by_nothing(timer(), other), changed
    # A few settings for a timer that a package may bring.
    assert not started_by_nothing(timer(section="Unit"), idle)
    assert not started_by_nothing(timer("report.target"), idle)
