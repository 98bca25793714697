"""``host.mount_point`` and ``host.block_device``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from testinfra.modules.blockdevice import LinuxBlockDevice
from testinfra.modules.mountpoint import MountPoint

from pytest_nixos.observe.text import unescape_octal

__all__ = ["NixosBlockDevice", "NixosMountPoint"]


class NixosMountPoint(MountPoint):
    """Test mount points, as the guest sees them.

    NixOS mounts the store read-only over itself, so one path can have several mounts: the topmost
    counts, where testinfra takes the lowest. Blanks in paths are decoded.
    """

    @classmethod
    def get_module_class(cls, _host: Any) -> type[NixosMountPoint]:
        return cls

    @classmethod
    def _iter_mountpoints(cls) -> Iterator[Mapping[str, Any]]:
        topmost: dict[str, Mapping[str, Any]] = {}
        for line in cls.check_output("cat /proc/self/mounts").splitlines():
            fields = [unescape_octal(field) for field in line.split(" ")]
            if len(fields) < 4 or fields[0] == "rootfs":
                continue
            device, path, filesystem, options = fields[:4]
            topmost[path] = {
                "path": path,
                "device": device,
                "filesystem": filesystem,
                "options": options.split(","),
            }
        yield from topmost.values()


class NixosBlockDevice(LinuxBlockDevice):
    """Test block devices."""

    @classmethod
    def get_module_class(cls, _host: Any) -> type[NixosBlockDevice]:
        return cls

    @property
    def start_sector(self) -> int:
        """Return the start sector on the underlying device, 0 for a whole device.

        testinfra answers with the sector size here.
        """
        return int(self._data["start_sector"])
