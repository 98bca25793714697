"""The images of a host's own disks, and what QEMU is told of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.local.process import Completed
from pytest_nixos.machine.disks.images import OwnDisks
from pytest_nixos.machine.disks.script import making_script
from pytest_nixos.nix.config.declared import FileSystem
from tests.support.runner import FakeRunner
from tests.unit.standards.samples import host_config

DONE = Completed(argv=(), exit_status=0, stdout=b"", stderr=b"")


def disks(run_dir: Path, *devices: str) -> OwnDisks:
    systems = {
        f"/{number}": FileSystem(mount_point=f"/{number}", device=d, fs_type="ext4", options=())
        for number, d in enumerate(devices)
    }
    host = host_config(file_systems=systems, own_disks=True)
    made = OwnDisks.of(host, run_dir, run_dir / "disk.qcow2")
    assert made is not None
    return made


def test_a_host_with_the_disk_of_build_vm_has_none_of_its_own(tmp_path: Path) -> None:
    assert OwnDisks.of(host_config(), tmp_path, tmp_path / "disk.qcow2") is None


def test_the_first_disk_is_the_run_scripts_and_others_are_given_to_qemu(tmp_path: Path) -> None:
    made = disks(tmp_path, "/dev/vda1", "/dev/sdb", "/dev/nvme0n1p1")

    assert made.argv == (
        *("-fw_cfg", f"name=opt/org.pytest-nixos/disks,file={tmp_path}/disks.bash"),
        *("-device", "virtio-scsi-pci"),
        *("-drive", f"file={tmp_path}/sda.qcow2,format=qcow2,if=none,id=pytest-nixos-sda,werror=report"),
        *("-device", "scsi-hd,drive=pytest-nixos-sda,id=pytest-nixos-disk-sda,serial=sda"),
        *("-drive", f"file={tmp_path}/sdb.qcow2,format=qcow2,if=none,id=pytest-nixos-sdb,werror=report"),
        *("-device", "scsi-hd,drive=pytest-nixos-sdb,id=pytest-nixos-disk-sdb,serial=sdb"),
        *("-drive", f"file={tmp_path}/nvme0n1.qcow2,format=qcow2,if=none,id=pytest-nixos-nvme0n1,werror=report"),
        *("-device", "nvme,drive=pytest-nixos-nvme0n1,serial=nvme0n1"),
    )  # fmt: skip


def test_images_are_made_once_with_the_script_that_fills_them(tmp_path: Path) -> None:
    made, runner = disks(tmp_path, "/dev/vda1", "/dev/sda1"), FakeRunner(DONE)
    (tmp_path / "sda.qcow2").touch()
    made.make_images(runner, "/x/qemu-img")
    made.write_script()

    assert runner.calls == [
        ("/x/qemu-img", "create", "-q", "-f", "qcow2", f"{tmp_path}/disk.qcow2", "2056M")
    ]
    assert (tmp_path / "disks.bash").read_text() == making_script(made.layout)


def test_files_of_the_run_are_no_part_of_what_names_the_disks(tmp_path: Path) -> None:
    made = disks(tmp_path, "/dev/vda1")
    before = made.digest
    made.write_script({"/etc/it's": "two\nlines\n"})
    script = (tmp_path / "disks.bash").read_text()
    made_there = script.replace("/plan", str(tmp_path)).partition("set -eu")[0]
    subprocess.run(["bash", "-c", made_there], check=True)

    assert (tmp_path / "stage-1/etc/it's").read_text() == "two\nlines\n"
    assert script.endswith(making_script(made.layout))
    assert made.digest == before


def test_an_image_that_cannot_be_made_is_told_in_qemus_words(tmp_path: Path) -> None:
    refused = Completed(argv=(), exit_status=1, stdout=b"", stderr=b"No such device")
    with pytest.raises(MachineError, match=r"disk.qcow2: No such device"):
        disks(tmp_path, "/dev/vda1").make_images(FakeRunner(refused), "qemu-img")


def test_disks_larger_than_the_room_are_refused_with_both_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 100 << 20

    monkeypatch.setattr("shutil.disk_usage", lambda _path: Usage)
    runner = FakeRunner(DONE)
    with pytest.raises(MachineError, match=r"100 MiB are free, .* need 206 MiB") as caught:
        disks(tmp_path, "/dev/vda1").make_images(runner, "qemu-img")
    assert "TMPDIR" in caught.value.remedy
    assert not runner.calls


def test_a_disk_whose_state_qemu_cannot_save_is_told_before_the_boot(tmp_path: Path) -> None:
    assert disks(tmp_path, "/dev/sda1", "/dev/vda1").unsavable == ""
    assert "NVMe disk (nvme0n1)" in disks(tmp_path, "/dev/nvme0n1p1").unsavable


def test_another_layout_is_another_machine(tmp_path: Path) -> None:
    assert disks(tmp_path, "/dev/vda1").digest != disks(tmp_path, "/dev/vda2").digest
