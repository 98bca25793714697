"""Disks that are pulled out of a real QEMU and put back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.console import Console
from pytest_nixos.machine.qemu.disks import plug_disk, pull_disk
from pytest_nixos.machine.qemu.qmp import QmpMonitor
from pytest_nixos.machine.serial_process import SerialProcess
from tests.support.qemu import qemu_program

QEMU = qemu_program()
pytestmark = pytest.mark.skipif(
    not QEMU, reason="no QEMU: neither on PATH nor of a VM (./dev test)"
)


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[QmpMonitor]:
    """The monitor of a QEMU that stands still, with a virtio and a SCSI disk."""
    assert QEMU
    for name in ("disk", "sda"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
    argv = (
        *(QEMU, "-machine", "pc,accel=tcg", "-S", "-nodefaults", "-display", "none"),
        *("-drive", f"file={tmp_path}/disk,format=raw,if=none,id=drive1"),
        *("-device", "virtio-blk-pci,drive=drive1", "-device", "virtio-scsi-pci"),
        *("-drive", f"file={tmp_path}/sda,format=raw,if=none,id=pytest-nixos-sda"),
        *("-device", "scsi-hd,drive=pytest-nixos-sda,id=pytest-nixos-disk-sda,serial=sda"),
        *("-qmp", f"unix:{tmp_path}/q,server=on,wait=off"),
    )
    process = SerialProcess(argv, env=dict(os.environ), cwd=tmp_path, console=Console())
    made = QmpMonitor(tmp_path / "q", on_event=lambda _name, _data: None)
    process.start()
    made.start()
    try:
        yield made
    finally:
        made.close()
        process.stop(grace_s=0.5)


def _files(monitor: QmpMonitor) -> list[str]:
    found = monitor.execute("query-block", deadline=Deadline.after(60))
    return sorted(Path(b["inserted"]["file"]).name for b in found if b.get("inserted"))


def test_a_disk_is_pulled_and_put_back_more_than_once(monitor: QmpMonitor) -> None:
    for _ in range(2):
        pulled = pull_disk(monitor, "sda")
        assert (Path(pulled.file).name, pulled.image_format) == ("sda", "raw")
        assert _files(monitor) == ["disk"]
        plug_disk(monitor, pulled)
        assert _files(monitor) == ["disk", "sda"]


def test_another_disk_is_none_that_could_be_pulled(monitor: QmpMonitor) -> None:
    with pytest.raises(MachineError, match="no disk vda that could be pulled; there are: sda"):
        pull_disk(monitor, "vda")
