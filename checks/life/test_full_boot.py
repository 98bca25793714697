"""A switch that finds no room for its boot entries: it says so, or boots all the same."""

from __future__ import annotations

import contextlib

import pytest

from pytest_nixos import BootsFrom, Evidence, not_applicable

from .stage import Stage, base_stage  # noqa: F401 - a fixture

pytestmark = [
    pytest.mark.nixos_destructive,
    pytest.mark.nixos_requires("boot-loader"),
]

_PLACES = ("/boot", "/boot/efi", "/efi")


@pytest.mark.nixos_control("RBK-023")
def test_switch_with_a_full_boot_partition(stage: Stage, nixos_evidence: Evidence) -> None:
    if stage.machine.boots_from is not BootsFrom.LOADER:
        not_applicable("the machine is started without a boot loader")
    places = [p for p in _PLACES if stage.machine.run(f"mountpoint -q {p}").succeeded]
    if not places:
        not_applicable("the boot loader's files lie on the root file system")
    from pytest_nixos import Faults

    life = stage.reset()
    new = stage.build({"etc": "new"})
    faults = Faults(stage.machine)
    stage.tell(f"switching with {' and '.join(places)} full")
    with contextlib.ExitStack() as full:
        for place in places:
            full.enter_context(faults.disk_full(place))
        outcome = life.switch(new)
    stage.tell("rebooting after it")
    rebooted = life.reboot()
    nixos_evidence.attach("switch-to-configuration", outcome.output)
    nixos_evidence.attach("console", "\n".join(rebooted.console))
    told = not outcome.ended_well
    names = {stage.base: "the old generation", new: "the new generation"}
    came_up = names.get(rebooted.after.booted, rebooted.after.booted)
    nixos_evidence.expect("the switch fails and the old generation boots, or the new one boots")
    nixos_evidence.observe({"switch": outcome.verdict, "came up": came_up})
    stage.reset()
    assert rebooted.after.booted in names, "a generation came up that is neither of the two"
    assert told or rebooted.after.booted == new, (
        "the switch says that it is done, and the reboot comes into the old generation"
    )
