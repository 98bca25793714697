"""What is tried on the host ``sealed`` of ``test_own_disks.py``, by a run of its own."""

from __future__ import annotations

import re

from pytest_nixos.generations.generations import Generations
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.faults.faults import Faults


def _source(machine: Machine, point: str) -> str:
    return machine.run(f"findmnt --noheadings --output SOURCE {point}").stdout_text.strip()


def _asked(machine: Machine, since: int = 0) -> tuple[bool, bool]:
    """Return whether stage 1 asked for a passphrase on the console, and whether stage 2 did."""
    text = "\n".join(line.text for line in machine.console.since(since))
    return "Passphrase for /dev/pool/secret" in text, "enter passphrase for disk" in text


def test_a_tpm_unlocks_one_until_its_pcr_has_another_value(
    nixos_machine: Machine, nixos_faults: Faults, nixos_generations: Generations
) -> None:
    layers = nixos_machine.run("lsblk --noheadings --inverse --output TYPE /dev/mapper/inner")
    assert _source(nixos_machine, "/secret") == "/dev/mapper/inner"
    assert sorted(re.findall(r"[a-z]+", layers.stdout_text)) == ["crypt", "disk", "lvm", "part"]
    assert _source(nixos_machine, "/vault") == "/dev/mapper/vault"
    assert _asked(nixos_machine) == (True, False)

    before = nixos_machine.console.count
    with nixos_faults.pcr_changed():
        nixos_generations.reboot()
        assert _asked(nixos_machine, before) == (True, True)
        assert _source(nixos_machine, "/vault") == "/dev/mapper/vault", "the test key opens it too"
    before = nixos_machine.console.count
    nixos_machine.power_off(orderly=True)
    nixos_machine.power_on()

    assert _source(nixos_machine, "/vault") == "/dev/mapper/vault"
    assert _asked(nixos_machine, before) == (True, False)
