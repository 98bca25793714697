"""Every data control of the catalogue can pass, can fail, and never passes unseen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from pytest_nixos.backend_name import EVERYWHERE, BackendName
from pytest_nixos.findings import Outcome
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.standards.control.model import Control, Operator
from pytest_nixos.standards.judging.judge import Verdict, judge
from pytest_nixos.standards.load import load_catalogue
from tests.unit.standards.pairs import FACTS, PAIRS, Case, audit_case, open_ports_case
from tests.unit.standards.samples import (
    declared_options,
    host_config,
    observation,
    required_options,
)
from tests.unit.standards.values import satisfying, violating

Json = Any
CATALOGUE = load_catalogue()
DATA = [control for control in CATALOGUE if control.is_data]


def place_of(control: Control, *, truthful: bool) -> BackendName:
    """Return a place where the control applies and whose running values are (not) true."""
    wanted = control.applies_to - control.falsified_in if truthful else control.falsified_in
    return next(place for place in sorted(EVERYWHERE) if place in wanted)


def computed_case(control: Control, *, good: bool) -> Case | None:
    """Return a written case for controls whose value is computed from several things."""
    assert control.observed is not None
    kind, p = control.observed.kind, control.observed.parameters
    if kind == "audit" and "status" not in p:
        return audit_case(p, good=good)
    if p.get("fact") == "open-tcp-ports":
        assert control.expect is not None
        return open_ports_case(control.expect.value, good=good)
    pair = PAIRS.get((kind, str(p.get("fact", ""))))
    return None if pair is None else pair[0 if good else 1]


def release_for(control: Control) -> Mapping[str, Json]:
    return {"release": control.until} if control.until else {}


def judged_on_machine(control: Control, *, good: bool) -> Verdict:
    assert control.observed is not None and control.expect is not None
    case = computed_case(control, good=good)
    options = required_options(control)
    if case is not None:
        changes, more, seen = case
        host = host_config(**{**release_for(control), **changes}, options={**options, **more})
    else:
        value = wanted_value(control, good=good)
        seen = observation(control.observed.kind, control.observed.parameters, value)
        assert seen is not None, f"{control.id}: no way to make an observation of its kind"
        if control.expect.op is Operator.AS_DECLARED and control.declared is not None:
            options |= declared_options(control.declared, "declared")
        host = host_config(**release_for(control), options=options)
    return judge(control, host, {control.observed.kind: seen}, place_of(control, truthful=True))


def wanted_value(control: Control, *, good: bool) -> Json:
    assert control.expect is not None
    if control.expect.op is Operator.AS_DECLARED:
        return "declared" if good else "another"
    return satisfying(control.expect) if good else violating(control.expect)


def merged(needed: Mapping[str, Json], declared: Mapping[str, Json]) -> dict[str, Json]:
    """Return what both say, member by member; a member that only stands for any is left out."""
    both = {**needed, **declared}
    for key in set(needed) & set(declared):
        if isinstance(needed[key], Mapping) and isinstance(declared[key], Mapping):
            kept = {k: v for k, v in needed[key].items() if k != "member"}
            both[key] = merged(kept, declared[key])
    return both


def host_declaring(control: Control, *, good: bool) -> HostConfig:
    assert control.declared is not None
    expect = control.declared.expect or control.expect
    assert expect is not None
    value = satisfying(expect) if good else violating(expect)
    if control.declared.fact is not None:
        declared = dict(FACTS[control.declared.fact][0 if good else 1])
    else:
        declared = declared_options(control.declared, value)
    options = merged(required_options(control), declared)
    return host_config(**release_for(control), options=options)


MACHINE = [c for c in DATA if c.observed is not None and c.applies_to - c.falsified_in]
CONFIG = [c for c in DATA if c.declared is not None and (c.observed is None or c.falsified_in)]


def wrong_outcomes(verdicts: Iterable[Verdict], wanted: Outcome) -> list[str]:
    return [
        f"{v.control.id}: {v.outcome.value} on {v.judged_on}: {v.reason}"
        for v in verdicts
        if v.outcome is not wanted or not v.reason or not v.expected
    ]


# One test a property and not one a control: 1,100 items would cost more than what they judge.
def test_each_passes_on_a_machine_that_is_right() -> None:
    verdicts = [judged_on_machine(control, good=True) for control in MACHINE]
    assert wrong_outcomes(verdicts, Outcome.PASSED) == []


def test_each_fails_on_a_machine_that_is_wrong() -> None:
    verdicts = [judged_on_machine(control, good=False) for control in MACHINE]
    assert wrong_outcomes(verdicts, Outcome.FAILED) == []


@pytest.mark.parametrize(("good", "outcome"), [(True, Outcome.PASSED), (False, Outcome.FAILED)])
def test_each_is_judged_on_a_config(good: bool, outcome: Outcome) -> None:
    verdicts = [
        judge(c, host_declaring(c, good=good), {}, place_of(c, truthful=c.observed is None))
        for c in CONFIG
    ]
    assert wrong_outcomes(verdicts, outcome) == []
    assert {v.judged_on for v in verdicts} == {"config"}


@pytest.mark.parametrize("place", sorted(EVERYWHERE))
def test_none_passes_unseen(place: BackendName) -> None:
    for control in DATA:
        host = host_config(options=required_options(control))
        verdict = judge(control, host, {}, place)
        assert verdict.reason
        if verdict.outcome is Outcome.PASSED:
            # Only an option that is there and says so passes without a machine.
            assert verdict.judged_on == "config", control.id
            assert control.declared is not None
            assert any(path in host.options for path in control.declared.options)


def test_each_was_tried() -> None:
    tried = {c.id for c in (*MACHINE, *CONFIG)}
    assert {c.id for c in DATA} - tried == set()
    assert len(DATA) > 350


BOTH = [c for c in MACHINE if c.declared is not None and c.expect is not None]


def judged_on_both(control: Control, *, declared_good: bool) -> Verdict:
    """Judge a machine that is right, on a host that declares what is right or wrong."""
    assert control.observed is not None
    host = host_declaring(control, good=declared_good)
    case = computed_case(control, good=True)
    if case is None:
        value = wanted_value(control, good=True)
        seen = observation(control.observed.kind, control.observed.parameters, value)
    else:
        changes, more, seen = case
        declared = {path: option.value for path, option in host.options.items()}
        host = host_config(**{**release_for(control), **changes}, options={**declared, **more})
    return judge(control, host, {control.observed.kind: seen}, place_of(control, truthful=True))


# What is expected as declared has its own declared side; it was tried above.
COMPARED = [c for c in BOTH if c.expect and c.expect.op is not Operator.AS_DECLARED]


@pytest.mark.parametrize(("good", "outcome"), [(True, Outcome.PASSED), (False, Outcome.FAILED)])
def test_a_right_machine_is_held_against_its_declaration(good: bool, outcome: Outcome) -> None:
    verdicts = [judged_on_both(control, declared_good=good) for control in COMPARED]
    assert wrong_outcomes(verdicts, outcome) == []
    wrong_place = [v.control.id for v in verdicts if v.judged_on != "both"]
    assert wrong_place == []
    assert len(COMPARED) > 100
