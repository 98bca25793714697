"""Generations that go wrong: each ends on a known-good generation by the documented path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from pytest_nixos import (
    BootError,
    BootsFrom,
    Evidence,
    SwitchEnd,
    Verb,
    not_applicable,
)

from .changes import (
    FAILING_ACTIVATION,
    FAILING_UNIT,
    NAME,
    PANIC,
    SYNTAX_ERROR,
    not_as_before,
)
from .stage import Stage, base_stage  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from pytest_nixos import SwitchOutcome

pytestmark = [
    pytest.mark.nixos_destructive,
    pytest.mark.nixos_requires("boot-loader", "container"),
]

_MOST_TRIES = 10


class Fall(msgspec.Struct, frozen=True, kw_only=True):
    """A bad generation, switched to and taken back."""

    switched: SwitchOutcome
    rolled_back: SwitchOutcome
    after: dict[str, str]


@pytest.mark.nixos_control("RBK-012")
def test_failing_unit(stage: Stage, nixos_evidence: Evidence) -> None:
    fall = _fall(stage, FAILING_UNIT, nixos_evidence)
    unit = f"{NAME}-failing.service"
    _judge(stage, fall, nixos_evidence, SwitchEnd.UNITS_FAILED, {unit})
    assert unit in fall.switched.announced.failed, "the switch does not name the unit that failed"


@pytest.mark.nixos_control("RBK-013")
def test_failing_activation_script(stage: Stage, nixos_evidence: Evidence) -> None:
    fall = _fall(stage, FAILING_ACTIVATION, nixos_evidence)
    _judge(stage, fall, nixos_evidence, SwitchEnd.ACTIVATION_FAILED, set())


@pytest.mark.nixos_control("RBK-014")
def test_syntax_error_in_a_unit(stage: Stage, nixos_evidence: Evidence) -> None:
    fall = _fall(stage, SYNTAX_ERROR, nixos_evidence)
    _judge(stage, fall, nixos_evidence, SwitchEnd.UNITS_FAILED, set())
    assert fall.after["kept-state"] == "active", "the unit does not run again after the rollback"


@pytest.mark.nixos_control("RBK-015")
def test_generation_that_does_not_boot(stage: Stage, nixos_evidence: Evidence) -> None:
    stage.reset()
    life, good = stage.generations, stage.base
    bad = life.boot(stage.build({}, PANIC)).toplevel
    number = life.list()[-1].number
    # The documented way to try a kernel: once, with the known-good generation as the default.
    life.rollback(Verb.BOOT)
    stage.tell("booting a generation that does not boot")
    try:
        life.reboot(into=number)
        failed = ""
    except BootError as err:
        failed = err.state
        nixos_evidence.attach("console", "\n".join(err.console_tail))
        stage.tell("switching the machine on again")
        stage.machine.power_on()
    links = life.links
    nixos_evidence.expect({"boots": False, "current": good, "default": good})
    nixos_evidence.observe(
        {"boots": not failed, "state": failed, "current": links.current, "default": links.default}
    )
    assert failed, f"{bad} was to panic, and it booted"
    assert links.current == links.default == good, (
        "the machine is not back on the known-good generation"
    )
    assert not not_as_before(stage.seen, stage.look()), "the known-good generation is not as it was"


@pytest.mark.nixos_requires("boot-loader")
@pytest.mark.nixos_control("RBK-016")
def test_boot_counting(stage: Stage, nixos_evidence: Evidence) -> None:
    life = stage.generations
    entries = stage.machine.run("ls /boot/loader/entries").stdout_text.split()
    counted = [entry for entry in entries if "+" in entry]
    blessed = stage.machine.run("systemctl cat systemd-bless-boot.service").succeeded
    if stage.machine.boots_from is not BootsFrom.LOADER or not (counted or blessed):
        not_applicable("the host's boot loader counts no boots")
    stage.reset()
    life.boot(stage.build({}, PANIC))
    failures = 0
    stage.tell("letting the boot loader count down")
    stage.machine.power_off(orderly=True)
    while failures < _MOST_TRIES:
        try:
            stage.machine.power_on()
            break
        except BootError:
            failures += 1
    nixos_evidence.expect(stage.base)
    assert nixos_evidence.observe(life.current) == stage.base, "the boot loader did not fall back"
    assert failures, "the bad generation was never tried"


def _fall(stage: Stage, more: str, evidence: Evidence) -> Fall:
    stage.reset()
    toplevel = stage.build({}, more)
    stage.tell("switching to a bad generation")
    switched = stage.generations.switch(toplevel)
    stage.tell("rolling back from it")
    rolled_back = stage.generations.rollback()
    evidence.attach("switch-to-configuration", switched.output)
    evidence.attach("rollback", rolled_back.output)
    evidence.attach("journal", switched.journal)
    return Fall(switched=switched, rolled_back=rolled_back, after=stage.look())


def _judge(stage: Stage, fall: Fall, evidence: Evidence, end: SwitchEnd, failed: set[str]) -> None:
    links = stage.generations.links
    evidence.expect(
        {"switch": end.name, "rollback": "done", "failed": sorted(failed), "current": stage.base}
    )
    evidence.observe(
        {
            "switch": fall.switched.end.name,
            "rollback": fall.rolled_back.verdict,
            # What else failed meanwhile is not what this generation was made to break.
            "failed": sorted(failed & set(fall.switched.observed.failed)),
            "current": links.current,
        }
    )
    assert fall.switched.end is end, (
        f"the switch ended with {fall.switched.exit_status}: {fall.switched.meaning}"
    )
    assert failed <= set(fall.switched.observed.failed), (
        "the failed unit is not seen to have failed"
    )
    assert fall.rolled_back.ended_well, f"the rollback ended with: {fall.rolled_back.verdict}"
    assert links.current == links.profile == stage.base, (
        "another generation runs, or is the profile's"
    )
    assert links.default in ("", stage.base), "another generation is the boot default"
    wrong = not_as_before(stage.seen, fall.after)
    assert not wrong, f"not as before after the rollback: {sorted(wrong)}"
