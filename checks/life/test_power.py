"""Reboots, power loss, a cut network and the garbage collector: what must be there to go back to
is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_nixos import Evidence, poll

from .changes import BEGUN, SLOW, not_as_before
from .stage import Stage, base_stage  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from pytest_nixos import PowerOutcome

pytestmark = [
    pytest.mark.nixos_destructive,
    pytest.mark.nixos_requires("boot-loader", "container"),
]

# The activation tells that it has begun, and stays there until the power goes.
_SLOW_LIMIT_S = 300.0
_CUT = "for link in $(ls /sys/class/net); do [ $link = lo ] || ip link set dev $link down; done"
_JOIN = "for link in $(ls /sys/class/net); do [ $link = lo ] || ip link set dev $link up; done"
_GC_LIMIT_S = 600.0


@pytest.mark.nixos_control("GEN-004")
def test_previous_generation_boots(stage: Stage, nixos_evidence: Evidence) -> None:
    life = stage.reset()
    previous = next(g.number for g in life.list() if g.toplevel == stage.base)
    new = life.switch(stage.build({"etc": "new"})).toplevel
    stage.tell("rebooting into the new generation")
    first = life.reboot()
    stage.tell("rebooting into the previous generation")
    second = life.reboot(into=previous)
    nixos_evidence.expect({"default": new, "chosen": stage.base})
    nixos_evidence.observe({"default": first.after.current, "chosen": second.after.current})
    _attach(nixos_evidence, second)
    stage.reset()
    assert first.after.current == new, "the reboot did not come into the boot default"
    assert second.after.current == second.after.booted == stage.base, "another generation booted"


@pytest.mark.nixos_control("RBK-017")
def test_rollback_without_network(stage: Stage, nixos_evidence: Evidence) -> None:
    life = stage.reset()
    life.switch(stage.build({"etc": "new", "kept": "new"}))
    stage.tell("cutting the network and rolling back")
    stage.machine.run(_CUT)
    try:
        outcome = life.rollback()
        after = stage.look()
    finally:
        stage.machine.run(_JOIN)
    nixos_evidence.attach("switch-to-configuration", outcome.output)
    wrong = not_as_before(stage.seen, after)
    nixos_evidence.expect({"exit": "done", "current": stage.base, "not as before": {}})
    nixos_evidence.observe(
        {"exit": outcome.verdict, "current": life.current, "not as before": wrong}
    )
    assert outcome.ended_well, f"the rollback ended with: {outcome.verdict}"
    assert life.current == stage.base, "another generation runs"
    assert not wrong, f"not as before after the rollback: {sorted(wrong)}"


@pytest.mark.nixos_control("RBK-018")
def test_power_loss_in_the_middle_of_a_switch(stage: Stage, nixos_evidence: Evidence) -> None:
    life = stage.reset()
    slow = stage.build({}, SLOW)
    life.set_profile(slow)
    stage.tell("losing power in the middle of a switch")
    stage.machine.run(f"cd / && nohup {slow}/bin/switch-to-configuration switch >/dev/null 2>&1 &")
    deadline = stage.machine.deadline(_SLOW_LIMIT_S)
    begun = poll(lambda: stage.machine.run(f"test -e {BEGUN}").succeeded or None, deadline=deadline)
    assert begun, "the activation did not begin"
    outcome = life.crash()
    _attach(nixos_evidence, outcome)
    links = outcome.after
    nixos_evidence.expect({"boots": True, "one of": [stage.base, slow]})
    came_up = "the new one" if links.current == slow else "the old one"
    nixos_evidence.observe({"boots": True, "came up": came_up, "current": links.current})
    assert links.current in (stage.base, slow), "neither the old nor the new generation runs"
    assert links.current == links.booted == links.default, "the links do not agree after the boot"
    stage.reset()


@pytest.mark.nixos_control("RBK-019")
def test_garbage_collection_keeps_what_is_needed(stage: Stage, nixos_evidence: Evidence) -> None:
    life = stage.reset()
    new = life.switch(stage.build({"etc": "new"})).toplevel
    rounds: list[PowerOutcome] = []
    for _ in range(2):
        stage.tell("rebooting into the new generation")
        rounds.append(life.reboot())
    live = stage.machine.run(
        "nix-store --gc --print-live", timeout_s=_GC_LIMIT_S
    ).stdout_text.split()
    links = life.links
    needed = {"current": links.current, "booted": links.booted, "known-good": stage.base}
    nixos_evidence.expect(dict.fromkeys(needed, True))
    observed = nixos_evidence.observe({name: path in live for name, path in needed.items()})
    came_up = [outcome.after.current for outcome in rounds]
    back = life.rollback()
    assert came_up == [new, new], "the reboots did not come into the new generation"
    assert all(observed.values()), (
        f"garbage collection would remove: {[n for n in needed if not observed[n]]}"
    )
    assert back.ended_well, f"the rollback after two boots ended with: {back.verdict}"
    assert life.current == stage.base, "another generation runs after the rollback"


@pytest.mark.nixos_control("RBK-020")
def test_kernel_has_its_modules(stage: Stage, nixos_evidence: Evidence) -> None:
    outcome = stage.generations.test(stage.base)
    nixos_evidence.expect("")
    nixos_evidence.observe(outcome.kernel_warning)
    assert not outcome.kernel_warning, outcome.kernel_warning


@pytest.mark.nixos_control("RBK-021")
def test_data_survives(stage: Stage, nixos_evidence: Evidence) -> None:
    life = stage.reset()
    seen = {"before": stage.look()["data"]}
    life.switch(stage.build({"kept": "new"}))
    seen["switch"] = stage.look()["data"]
    life.rollback()
    seen["rollback"] = stage.look()["data"]
    stage.tell("cutting the power")
    life.crash()
    seen["power loss"] = stage.look()["data"]
    nixos_evidence.expect(dict.fromkeys(seen, stage.mark))
    nixos_evidence.observe(seen)
    lost = [name for name, data in seen.items() if data != stage.mark]
    assert not lost, f"data below /var/lib is gone after: {lost}"


def _attach(evidence: Evidence, outcome: PowerOutcome) -> None:
    evidence.attach("console", "\n".join(outcome.console))
    evidence.attach("journal", outcome.journal)
