"""LUKS devices that a TPM unlocks, and the command by which a PCR gets another value."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.disks.layout import layout_of
from pytest_nixos.machine.disks.script import making_script
from pytest_nixos.machine.disks.tpm import extending_steps, order_command
from pytest_nixos.nix.config.declared import FileSystem, LuksDevice
from pytest_nixos.nix.config.host_facts import HostConfig
from tests.unit.standards.samples import host_config

ROOT = FileSystem(mount_point="/", device="/dev/mapper/crypt", fs_type="ext4", options=())


def host(*options: str, tpm: bool = True, headless: bool = False) -> HostConfig:
    crypt = LuksDevice(name="crypt", device="/dev/vda2", options=options, headless=headless)
    return host_config(
        file_systems={"/": ROOT}, luks={"crypt": crypt}, own_disks=True, machine_tpm=tpm
    )


def test_a_device_that_the_tpm_unlocks_is_enrolled_where_it_is_made() -> None:
    layout = layout_of(host("discard", "tpm2-device=auto", headless=True))
    script = making_script(layout)

    assert layout.by_tpm == ("crypt",)
    assert layout.words == "vda: luks by TPM (ext4); sizes are chosen"
    enrolled = script.index("systemd-cryptenroll --unlock-key-file=/plan/key --tpm2-device=auto")
    assert script.index("luksFormat") < enrolled < script.index("cryptsetup open")
    assert " --tpm2-pcrs=7 /dev/vda2\n" in script
    assert script.index("await /dev/tpm0") < script.index("; then exit 0; fi"), "at each boot"


def test_its_key_is_bound_to_the_pcrs_that_are_named() -> None:
    script = making_script(layout_of(host("tpm2-device=/dev/tpmrm0", "tpm2-pcrs=0+7")))

    assert " --tpm2-pcrs=0+7 /dev/vda2\n" in script


@pytest.mark.parametrize("options", [(), ("tpm2-device=none",), ("fido2-device=auto",)])
def test_others_are_not_enrolled(options: tuple[str, ...]) -> None:
    layout = layout_of(host(*options))

    assert layout.by_tpm == ()
    assert "tpm" not in making_script(layout)


def test_a_vm_without_a_tpm_is_refused_with_what_gives_it_one() -> None:
    with pytest.raises(
        MachineError, match=r"a TPM unlocks the LUKS device crypt .*its VM has none"
    ) as caught:
        layout_of(host("tpm2-device=auto", tpm=False))
    assert "23.11" in caught.value.remedy


def test_what_are_no_pcrs_is_refused() -> None:
    with pytest.raises(MachineError, match=r"tpm2-pcrs=7;reboot, which are no PCRs"):
        layout_of(host("tpm2-device=auto", "tpm2-pcrs=7;reboot"))


def test_stage_1_follows_the_order_of_the_guest_and_sends_what_the_tpm_understands(
    tmp_path: Path,
) -> None:
    disk, sent = tmp_path / "disk", tmp_path / "sent"
    disk.write_bytes(bytes(1 << 20))
    # A regular file in place of the TPM: what is written to it is read back as the answer.
    steps = extending_steps(str(disk)).replace("/dev/tpm0", str(sent))
    prelude = 'await() { :; }; say() { echo "$*"; }\n'

    def told(pcr: int | None) -> str:
        subprocess.run(["bash", "-c", order_command(str(disk), pcr)], check=True)
        sent.write_bytes(b"")
        return subprocess.run(
            ["bash", "-c", prelude + steps], capture_output=True, text=True, check=False
        ).stdout

    assert "does not extend PCR 23" in told(23)
    command = sent.read_bytes()
    # TPM 2.0 Library, part 3, TPM2_PCR_Extend: tag, size, code, PCR, and the password session.
    assert command[:14].hex() == "8002000000410000018200000017"
    assert command[14:27].hex() == "00000009400000090000000000"
    assert command[27:33].hex() == "00000001000b"
    assert len(command) == 0x41
    assert told(None) == ""
    assert disk.read_bytes() == bytes(1 << 20)
