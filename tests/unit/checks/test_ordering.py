"""Who is left out for a cycle of orderings, and which ordering is taken away."""

from __future__ import annotations

from msgspec.structs import replace

from checks.units.ordering import left_out, without_an_ordering
from pytest_nixos import Unit
from pytest_nixos.observe.systemd.unit import UnitState
from tests.unit.standards.samples import sample_unit


def unit(name: str, **settings: str) -> Unit:
    return replace(sample_unit(name), settings={"Unit": {k: (v,) for k, v in settings.items()}})


def state(name: str, **properties: str) -> UnitState:
    return UnitState(name=name, properties={"LoadState": "loaded", **properties})


def test_what_has_run_was_not_left_out() -> None:
    states = {
        "a.service": state("a.service", ActiveState="active"),
        "b.service": state("b.service", ActiveState="inactive", InactiveExitTimestampMonotonic="7"),
        "c.service": state("c.service", ActiveState="inactive"),
    }
    assert left_out(["a.service", "b.service", "c.service", "d.target"], states) == ["c.service"]


def test_an_ordering_that_is_written_with_after() -> None:
    declared = {
        "a.service": unit("a.service", After="network.target b.service"),
        "b.service": unit("b.service"),
    }
    text = without_an_ordering(["a.service", "b.service"], declared)
    assert "a.service after b.service after a.service" in text
    assert 'systemd.services."a".after = lib.mkForce [ "network.target" ];' in text


def test_an_ordering_that_is_written_with_before() -> None:
    declared = {
        "a.service": unit("a.service"),
        "b.timer": unit("b.timer", Before="a.service"),
    }
    text = without_an_ordering(["a.service", "b.timer"], declared)
    assert 'systemd.timers."b".before = lib.mkForce [ ];' in text


def test_orderings_that_nobody_wrote_are_named() -> None:
    text = without_an_ordering(["timers.target", "a.timer"], {"a.timer": unit("a.timer")})
    assert text == (
        "# One of these orderings has to go: timers.target after a.timer after timers.target"
    )
