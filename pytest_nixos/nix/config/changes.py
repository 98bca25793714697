"""What a machine has instead of what its host declares, told in a few groups with the reason."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from pytest_nixos.nix.config.differences import differences

__all__ = ["Change", "changes", "leaves"]

Json = Any
Pair = tuple[Json, Json]

#: What follows from other options: systemd's own note of what a unit was made with.
_NOTES = re.compile(r"\.(X-Restart-Triggers|X-Reload-Triggers)$")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Some options that differ in the machine, for one reason.

    :param what: in two or three words.
    :param why: in a sentence.
    :param options: option path to (declared, in the machine).
    """

    what: str
    why: str
    options: Mapping[str, Pair]


class _Group(msgspec.Struct, frozen=True):
    what: str
    why: str
    paths: re.Pattern[str]


def _group(what: str, why: str, paths: str) -> _Group:
    return _Group(what, why, re.compile(paths))


_UNIT = r'systemd\.units\."?'
# The first group whose pattern a path begins with takes it; what none takes is told as the last
# one. At most nine, so that a list of them has ten lines.
_GROUPS = (
    _group(
        "command channel",
        "tests reach the guest by it, in emergency mode too",
        rf"{_UNIT}(pytest-nixos-channel\.service|(sysinit|emergency|rescue)\.target)",
    ),
    _group(
        "boot loader",
        "a VM that starts its kernel directly has none to install",
        r"system\.build\.installBootLoader|boot\.loader\b",
    ),
    _group(
        "store",
        "it comes as an image and nothing is shared, so that the booted VM can be saved",
        r"virtualisation\.(useNixStoreImage|mountHostNixStore|writableStore|sharedDirectories|"
        r"qemu\.enableSharedMemory)|boot\.(readOnlyNixStore|nixStoreMountOpts)",
    ),
    _group(
        "outside network",
        "a guest reaches this machine only; --nixos-network open lets it out",
        r"virtualisation\.restrictNetwork",
    ),
    _group(
        "memory, processors, display, manual",
        "they are what this machine gives; tests need no display and no manual of NixOS",
        r"virtualisation\.(memorySize|cores|graphics|diskSize|resolution)|documentation\.nixos\b",
    ),
    _group(
        "disks and file systems",
        "a VM has a disk of its own, and a container the directories that it is given",
        r"fileSystems|swapDevices|zramSwap|boot\.(initrd|supportedFilesystems|zfs|tmp|resumeDevice)"
        rf"|{_UNIT}[^\"]*\.(mount|automount|swap)\b|{_UNIT}(systemd-(fsck|growfs|makefs)|mkswap|zpool|"
        r"local-fs|remote-fs|swap\.target|zfs|lvm|mdadm|dev-)",
    ),
    _group(
        "clock",
        "a guest takes the time from the machine that it runs on",
        rf"services\.(timesyncd|chrony|ntp|openntpd)\b|time\.|{_UNIT}(systemd-timesyncd|chronyd|ntpd|openntpd)",
    ),
    _group(
        "kernel",
        "a VM gets a console on its command line; a container has the kernel of this machine",
        r"boot\.(kernel|isContainer|isNspawnContainer|extraModprobe|blacklisted|modprobe|extraModule)"
        rf"|{_UNIT}(systemd-(modules-load|sysctl|udev)|kmod|modprobe|audit)|security\.(audit|"
        r"lockKernelModules|protectKernelImage)|hardware\.|console\.",
    ),
    _group(
        "network, users, services",
        "modules of nixpkgs turn them off, or give them other accounts, in such a machine",
        r"networking\b|users\b|services\b|systemd\b|nix\b|powerManagement\b|environment\b|security\b",
    ),
)
_REST = "other options"


def changes(changed: Mapping[str, Pair]) -> tuple[Change, ...]:
    """Group what differs by its reason; at most ten groups, in a fixed order.

    :param changed: option path to (declared, in the machine).
    """
    found: dict[str, dict[str, Pair]] = {}
    for path, pair in leaves(changed).items():
        group = next((group for group in _GROUPS if group.paths.match(path)), None)
        found.setdefault(_REST if group is None else group.what, {})[path] = pair
    whys = {group.what: group.why for group in _GROUPS}
    whys[_REST] = "they follow from those above"
    return tuple(
        Change(what=what, why=why, options=found[what])
        for what, why in whys.items()
        if what in found
    )


def leaves(changed: Mapping[str, Pair]) -> dict[str, Pair]:
    """Return the single options that differ: a set that was compared as a whole is taken apart,
    and what only notes that something else changed is left out.
    """
    found: dict[str, Pair] = {}
    for path, (ours, theirs) in changed.items():
        for leaf, pair in differences(path, ours, theirs).items():
            if not _NOTES.search(leaf):
                found.setdefault(leaf, pair)
    return dict(sorted(found.items()))
