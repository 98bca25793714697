"""The file system table (fstab(5))."""

from __future__ import annotations

from pytest_nixos.observe.filesystems.mount import parse_fstab

TABLE = r"""# comment
/dev/disk/by-label/nixos / ext4 x-initrd.mount,defaults 0 1

/dev/disk/by-label/my\040data /srv/my\040data ext4 nofail 0 2
server:/x /net nfs x-systemd.automount,noauto 0 0
/var/swapfile none swap pri=5 0 0
odd line
"""


def test_table() -> None:
    root, data, net, swap = parse_fstab(TABLE)
    assert root.path == "/"
    assert data.path == "/srv/my data"
    assert data.source == "/dev/disk/by-label/my data"
    assert net.waits_for_use
    assert not data.waits_for_use
    assert swap.is_swap
