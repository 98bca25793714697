"""Memberships of groups that are declared, those that a machine has, and what mends the difference."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping

from pytest_nixos import HostConfig

__all__ = ["missing_memberships", "read_groups", "with_groups"]

# What makes a group beside its members: options of nixpkgs 24.05 to 25.11.
_MADE_BY = {
    "adbusers": "programs.adb.enable",
    "docker": "virtualisation.docker.enable",
    "gamemode": "programs.gamemode.enable",
    "i2c": "hardware.i2c.enable",
    "incus-admin": "virtualisation.incus.enable",
    "jackaudio": "services.jack.jackd.enable",
    "libvirtd": "virtualisation.libvirtd.enable",
    "networkmanager": "networking.networkmanager.enable",
    "podman": "virtualisation.podman.enable",
    "scanner": "hardware.sane.enable",
    "uinput": "hardware.uinput.enable",
    "vboxusers": "virtualisation.virtualbox.host.enable",
    "wireshark": "programs.wireshark.enable",
}
_ALIKE = 0.75


def read_groups(text: str) -> Mapping[str, frozenset[str]]:
    """Return groups with their members from the text of group(5)."""
    rows = [line.split(":") for line in text.splitlines()]
    return {row[0]: frozenset(filter(None, row[3].split(","))) for row in rows if len(row) == 4}


def missing_memberships(
    host: HostConfig, groups: Mapping[str, Collection[str]]
) -> Mapping[str, Mapping[str, str]]:
    """Return account to group to what is wrong, of the memberships that the host declares.

    What makes accounts of a configuration drops a group that nothing declares without a word
    (nixos/modules/config/update-users-groups.pl, from the members of ``users.groups``).

    :param groups: those of the machine.
    """
    return {
        user.name: wrong
        for user in host.users.values()
        if user.enabled
        and (
            wrong := {
                group: "is not a member" if group in groups else _unknown(group, groups)
                for group in user.extra_groups
                if user.name not in groups.get(group, ()) and group != user.group
            }
        )
    }


def with_groups(
    host: HostConfig, missing: Mapping[str, Mapping[str, str]], known: Iterable[str]
) -> str:
    """Return module text that names groups which are there.

    :param known: the groups of the machine.
    """
    there = frozenset(known)
    lines = []
    for user in host.users.values():
        gone = {g: _meant(g, there) for g in missing.get(user.name, ()) if g not in there}
        lines += [
            f"# The group {meant} comes with {_MADE_BY[meant]} = true;"
            for meant in gone.values()
            if meant in _MADE_BY and meant not in there
        ]
        if gone:
            kept = [gone.get(group, group) for group in user.extra_groups]
            names = " ".join(f'"{name}"' for name in dict.fromkeys(kept) if name in there)
            lines.append(f'users.users."{user.name}".extraGroups = lib.mkForce [ {names} ];')
    return "\n".join(dict.fromkeys(lines))


def _unknown(group: str, groups: Iterable[str]) -> str:
    meant = _meant(group, groups)
    return "no such group" if meant in ("", group) else f"no such group (meant: {meant}?)"


def _meant(group: str, groups: Iterable[str]) -> str:
    """Return the group whose name is nearest, of the machine's and those that an option makes."""
    known = sorted({*groups, *_MADE_BY})
    return next(iter(difflib.get_close_matches(group, known, n=1, cutoff=_ALIKE)), "")
