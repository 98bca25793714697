"""Each verb to each change: where the links go, what is in force, and that all of it can be
taken back.

A container tries every change by itself; a VM, in which a switch takes many seconds, all of them at
once. The matrix is walked once per host; each control judges a part of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_nixos import (
    Evidence,
    HostConfig,
    Verb,
)

from .changes import CHANGES, Change, everything, not_as_before
from .stage import Cell, Stage, base_stage  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from pytest_nixos import Links, SwitchOutcome

pytestmark = [
    pytest.mark.nixos_destructive,
    pytest.mark.nixos_requires("boot-loader", "container"),
]

_DONE = "done"


@pytest.fixture(scope="module")
def matrix(stage: Stage, nixos_host_config: HostConfig, nixos_place: str) -> tuple[Cell, ...]:
    """Every verb to every change, walked once."""
    firewall = nixos_host_config.firewall is not None and nixos_host_config.firewall.enabled
    possible = tuple(c for c in CHANGES if firewall or not c.needs_firewall)
    changes: tuple[Change, ...] = (
        possible if nixos_place == "container" else (everything(possible),)
    )
    return tuple(stage.try_cell(verb, change) for verb in Verb for change in changes)


@pytest.mark.nixos_control("RBK-006")
def test_links_after_each_verb(matrix: tuple[Cell, ...], nixos_evidence: Evidence) -> None:
    expected = {
        cell.name: _links(cell.before.after(cell.verb, cell.outcome.toplevel)) | {"ended": _DONE}
        for cell in matrix
    }
    observed = {
        cell.name: _links(cell.outcome.after) | {"ended": cell.outcome.verdict} for cell in matrix
    }
    nixos_evidence.expect(expected)
    nixos_evidence.observe(observed)
    failed = {c.name: c.outcome.verdict for c in matrix if not c.outcome.ended_well}
    assert not failed, f"of {len(matrix)} cells did not end well: {failed}"
    wrong = [name for name in expected if observed[name] != expected[name]]
    assert not wrong, f"links are not where the verb has to leave them: {wrong}"


@pytest.mark.nixos_control("RBK-007")
def test_change_is_in_force(
    matrix: tuple[Cell, ...], stage: Stage, nixos_evidence: Evidence
) -> None:
    expected = {c.name: _expected(c, stage.seen) for c in matrix}
    observed = {c.name: {key: c.changed.get(key) for key in c.change.shows} for c in matrix}
    nixos_evidence.expect(expected)
    nixos_evidence.observe(observed)
    wrong = [name for name in expected if observed[name] != expected[name]]
    assert not wrong, (
        f"of {len(matrix)} cells these show another state than their verb promises: {wrong}"
    )


@pytest.mark.nixos_control("RBK-008")
def test_all_is_restored(matrix: tuple[Cell, ...], stage: Stage, nixos_evidence: Evidence) -> None:
    broken = {
        cell.name: wrong for cell in matrix if (wrong := not_as_before(stage.seen, cell.after))
    }
    moved = {c.name: _links(c.links) for c in matrix if _links(c.links) != _links(c.before)}
    ends = {
        c.name: c.returned.verdict
        for c in matrix
        if c.returned is not None and not c.returned.ended_well
    }
    nixos_evidence.expect({"not as before": {}, "links": {}, "ends": {}})
    nixos_evidence.observe({"not as before": broken, "links": moved, "ends": ends})
    assert not broken, f"not as before after going back: {sorted(broken)}"
    assert not moved, f"links are not as before after going back: {sorted(moved)}"
    assert not ends, f"going back did not end well: {ends}"


@pytest.mark.nixos_control("RBK-009")
def test_dry_activation_announces_what_the_switch_does(
    matrix: tuple[Cell, ...], nixos_evidence: Evidence
) -> None:
    dry = {c.change.name: _announced(c.outcome) for c in matrix if c.verb is Verb.DRY_ACTIVATE}
    real = {c.change.name: _announced(c.outcome) for c in matrix if c.verb is Verb.SWITCH}
    nixos_evidence.expect(dry)
    nixos_evidence.observe(real)
    wrong = [name for name in dry if dry[name] != real[name]]
    assert dry, "no dry activation was tried"
    assert not wrong, f"the switch did other things than its dry activation announced: {wrong}"


@pytest.mark.nixos_control("RBK-010")
def test_units_follow(matrix: tuple[Cell, ...], nixos_evidence: Evidence) -> None:
    cells = [c for c in matrix if c.verb is Verb.SWITCH]
    expected, observed = {}, {}
    for cell in cells:
        did = cell.outcome.observed
        for key, unit, units in (
            ("kept", "pytest-nixos-life-kept.service", did.restarted),
            ("reloads", "pytest-nixos-life-reloads.service", did.reloaded),
            ("removed", "pytest-nixos-life-removed.service", did.stopped),
            ("added", "pytest-nixos-life-added.service", did.started),
        ):
            name = f"{cell.change.name}: {unit}"
            expected[name] = key in cell.change.values
            observed[name] = unit in units
    nixos_evidence.expect(expected)
    nixos_evidence.observe(observed)
    wrong = [name for name in expected if observed[name] != expected[name]]
    assert expected, "no switch was tried"
    assert not wrong, (
        f"changed units restart, reloading ones reload, removed ones stop; not so: {wrong}"
    )


@pytest.mark.nixos_control("RBK-011")
def test_second_switch_is_a_no_op(stage: Stage, nixos_evidence: Evidence) -> None:
    stage.reset()
    count = len(stage.generations.list())
    again = stage.generations.switch(stage.base)
    nixos_evidence.attach("switch-to-configuration", again.output)
    observed = nixos_evidence.observe(
        {
            "exit": again.verdict,
            "announced": sorted(again.announced.touched - _EACH_TIME),
            "restarted": [
                u
                for u in again.observed.restarted
                if u.endswith(".service") and u not in _EACH_TIME
            ],
            "generations": len(stage.generations.list()),
        }
    )
    expected = nixos_evidence.expect(
        {"exit": _DONE, "announced": [], "restarted": [], "generations": count}
    )
    assert observed == expected, "switching to what runs already changes something"


# Jobs that an activation starts each time, by design
# (nixos/modules/system/boot/systemd/tmpfiles.nix, sysinit.nix).
_EACH_TIME = frozenset(
    {"sysinit-reactivation.target", "systemd-tmpfiles-resetup.service", "nixos-activation.service"}
)


def _expected(cell: Cell, base: dict[str, str]) -> dict[str, str | None]:
    if cell.verb in (Verb.SWITCH, Verb.TEST):
        return dict(cell.change.shows)
    return {key: base.get(key) for key in cell.change.shows}


def _links(links: Links | None) -> dict[str, str]:
    if links is None:
        return {}
    return {
        "current": links.current,
        "profile": links.profile,
        "default": links.default,
        "booted": links.booted,
    }


def _announced(outcome: SwitchOutcome) -> dict[str, list[str]]:
    said = outcome.announced
    return {
        "stopped": list(said.stopped),
        "started": list(said.started),
        "restarted": list(said.restarted),
        "reloaded": list(said.reloaded),
        "left": list(said.left),
    }
