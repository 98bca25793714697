"""Mounts: recorded ones, and those of this machine."""

from __future__ import annotations

from pytest_nixos.observe.base import observe
from pytest_nixos.observe.filesystems.mount import mounts, parse_mountinfo
from tests.unit.observe.here import here

MOUNTINFO = r"""285 1 0:60 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/a
290 285 0:60 /nix/store /nix/store rw - overlay overlay rw
291 290 0:60 /nix/store /nix/store ro - overlay overlay rw
292 285 0:70 / /mnt/with\040blank rw - tmpfs tmpfs ro
293 285 0:66 /systemd/inaccessible/dir /home ro,nosuid - tmpfs tmpfs rw
broken
""".splitlines()


def test_the_topmost_mount_counts() -> None:
    table = parse_mountinfo(MOUNTINFO)
    assert table.is_read_only("/nix/store/abc")
    assert not table.is_read_only("/nix")
    assert not table.is_read_only("/nix/store-of-another-name")
    assert table.is_read_only("/mnt/with blank/x")
    assert table.is_inaccessible("/home/alice")
    assert not table.is_inaccessible("/homes")


def test_real_mounts() -> None:
    found = observe(here, mounts()).at("/proc")
    assert found is not None
    assert found.filesystem == "proc"
