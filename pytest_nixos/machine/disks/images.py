"""The empty disks of a VM, and QEMU's arguments for them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from pytest_nixos.errors import MachineError
from pytest_nixos.local.process import Runner
from pytest_nixos.machine.capabilities import disk_id
from pytest_nixos.machine.disks.layout import layout_of
from pytest_nixos.machine.disks.qemu_img import run_qemu_img
from pytest_nixos.machine.disks.script import given_files, making_script
from pytest_nixos.machine.disks.volumes import Disk, Layout
from pytest_nixos.nix.config.host_facts import HostConfig

__all__ = ["OwnDisks"]

_LIMIT_S = 60.0
_SCRIPT = "disks.bash"
_MIB = 1 << 20
# An image holds what was written to it: the metadata of new file systems, and what the boot writes.
_WRITTEN_SHARE = 0.1


class OwnDisks(msgspec.Struct, frozen=True, kw_only=True):
    """The disks that a host declares, in a directory of its machine.

    :param first: image of the first disk, which the run script gives to QEMU itself.
    """

    layout: Layout
    run_dir: Path
    first: Path

    @classmethod
    def of(cls, host: HostConfig, run_dir: Path, first: Path) -> OwnDisks | None:
        """Return the disks of a host whose machine has them, ``None`` for others.

        :raises MachineError: if they cannot be made.
        """
        if not host.own_disks:
            return None
        return cls(layout=layout_of(host), run_dir=run_dir, first=first)

    @property
    def digest(self) -> str:
        """Name all that they will hold."""
        return hashlib.sha256(making_script(self.layout).encode()).hexdigest()

    @property
    def unsavable(self) -> str:
        """Why the state of a VM with these disks cannot be saved, ``""`` where it can."""
        nvme = [disk.name for disk in self.layout.disks if disk.name.startswith("nvme")]
        return f"QEMU cannot save the state of an NVMe disk ({nvme[0]})" if nvme else ""

    @property
    def argv(self) -> tuple[str, ...]:
        """QEMU's arguments for what the run script does not give it: further disks, and the script
        that makes them.
        """
        further = [d for d in self.layout.disks if d.device != "/dev/vda"]
        controller = ("-device", "virtio-scsi-pci") if any(_is_scsi(d) for d in further) else ()
        script = f"name=opt/org.pytest-nixos/disks,file={self.run_dir / _SCRIPT}"
        return (
            *("-fw_cfg", script),
            *controller,
            *(word for disk in further for word in _drive(disk, self._image(disk))),
        )

    def write_script(self, files: Mapping[str, str] = MappingProxyType({})) -> None:
        """Put the script where QEMU reads it.

        :param files: what stage 1 gets of this run alone, by path.
        """
        steps = given_files({f"/plan/stage-1{path}": text for path, text in files.items()})
        (self.run_dir / _SCRIPT).write_text(steps + making_script(self.layout))

    def make_images(self, runner: Runner, qemu_img: str) -> None:
        """Make the empty images, those that are there left alone.

        :raises MachineError: if one cannot be made, or there is no room for what will be in them.
        """
        missing = [d for d in self.layout.disks if not self._image(d).exists()]
        needs = sum(disk.size_mib for disk in missing) * _MIB * _WRITTEN_SHARE
        free = shutil.disk_usage(self.run_dir).free
        if needs > free:
            raise MachineError(
                f"{self.run_dir}: {free // _MIB} MiB are free, the disks that the host declares need {needs / _MIB:.0f} MiB",
                remedy="set TMPDIR to a directory with more room, or leave the host's disks out (--nixos-disks default)",
            )
        for disk in missing:
            _create(runner, qemu_img, self._image(disk), disk.size_mib)

    def _image(self, disk: Disk) -> Path:
        return self.first if disk.device == "/dev/vda" else self.run_dir / f"{disk.name}.qcow2"


def _drive(disk: Disk, image: Path) -> tuple[str, ...]:
    identity = f"pytest-nixos-{disk.name}"
    device = (
        f"scsi-hd,drive={identity},id={disk_id(disk.name)},serial={disk.name}"
        if _is_scsi(disk)
        else f"nvme,drive={identity},serial={disk.name}"
    )
    return (
        *("-drive", f"file={image},format=qcow2,if=none,id={identity},werror=report"),
        *("-device", device),
    )


def _is_scsi(disk: Disk) -> bool:
    return disk.name.startswith("sd")


def _create(runner: Runner, qemu_img: str, image: Path, size_mib: int) -> None:
    argv = (qemu_img, "create", "-q", "-f", "qcow2", str(image), f"{size_mib}M")
    run_qemu_img(runner, argv, image, limit_s=_LIMIT_S)
