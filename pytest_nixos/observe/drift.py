"""Drift: what a host has become beside what its flake says: another system, files of ``/etc`` that
nobody declared, containers and accounts made by hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.generation import SHOW_ROLES, Roles
from pytest_nixos.observe.text import NAMES, names, pairs

__all__ = ["Drift", "drift"]

# NixOS leaves links in /etc, and copies what is to have a mode of its own; /etc/.clean names the
# copies (nixos/modules/system/etc/setup-etc.pl). Where /etc is an overlay
# (system.etc.overlay.enable), what is beside the declared files lies in its upper directory.
_READ = rf"""
title roles
{SHOW_ROLES}
title generations
for link in /nix/var/nix/profiles/system-*-link; do [ -L "$link" ] && printf '%s=%s\n' "$link" "$(readlink -m "$link")"; done
place=/etc
while read -r _ target type options _; do
  [[ $target == /etc && $type == overlay ]] || continue
  place=; [[ ,$options, =~ ,upperdir=([^,]*), ]] && place=${{BASH_REMATCH[1]}}
done </proc/self/mounts
if [[ -n $place ]]; then
  title files
  find "$place" -xdev -path "$place/nixos" -prune -o -type f -printf '%P\0' | {NAMES}
fi
title clean
[ -r /etc/.clean ] && printf '%s\n' "$(</etc/.clean)"
title containers
for file in /etc/nixos-containers/*.conf /etc/containers/*.conf; do
  [ -f "$file" ] && [ ! -L "$file" ] && printf '%s\0' "$file"
done | {NAMES}
title accounts
while IFS=: read -r account _; do printf '%s\n' "$account"; done </etc/passwd
title complete
true
"""
_NUMBERED = re.compile(r"/system-([0-9]{1,9})-link$")
_CONTAINER = re.compile(r"/(nixos-)?containers/([^/]+)\.conf$")
_IMPERATIVE_FILES = ("nixos-containers/*.conf", "containers/*.conf")
#: What NixOS itself and its modules keep in ``/etc`` as state, by who writes it.
_STATE = (
    # The activation of NixOS: update-users-groups.pl, setup-etc.pl, stage-2-init.sh.
    *(".clean", ".updated", ".pwd.lock", "NIXOS", "passwd", "group", "shadow", "gshadow"),
    *("passwd-", "group-", "shadow-", "gshadow-", "subuid", "subgid", "subuid-", "subgid-"),
    # What systemd keeps: machine-id(5), systemd-firstboot(1), timedatectl(1), systemd-creds(1).
    *("machine-id", "machine-info", "hostname", "adjtime", "localtime", "locale.conf"),
    *("vconsole.conf", "credstore/*", "credstore.encrypted/*", "systemd/*.pcrlock"),
    # Resolvers, by resolvconf(8) and others.
    *("resolv.conf", "resolv.conf.*", "resolvconf.conf", ".resolv.conf*"),
    # Keys and state of services that keep them there by their own default.
    *("ssh/ssh_host_*", "NetworkManager/*", "lvm/*", "zfs/zpool.cache", "secureboot/*"),
    *("cups/*", "printcap", "cni/*", "rancher/*", "docker/key.json", "mullvad-vpn/*"),
    *("iscsi/*", "krb5.keytab", "samba/*", "pki/*", "group.old", "mtab"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What a guest is and has that its flake may not say.

    :param current: store path of the system that runs, ``""`` if there is none.
    :param generations: number to store path of what the system profile keeps.
    :param files: of ``/etc``, by their path below it: neither links of NixOS, nor copies that it
        keeps, nor known state.
    :param containers: names of containers that nixos-container(8) made.
    :param accounts: names in ``/etc/passwd``.
    """

    current: str
    generations: Mapping[int, str]
    files: tuple[str, ...]
    containers: tuple[str, ...]
    accounts: tuple[str, ...]


def drift(*, name: str = "drift") -> Probe[Drift | None]:
    """Ask for what may have drifted; ``None`` where the answer is not whole."""
    return Probe(name=name, script=f"shopt -s nullglob\n{_READ}", parse=_parse)


def _parse(output: ProbeOutput) -> Drift | None:
    sections = dict(output.records)
    if "complete" not in sections:
        return None
    copies = set(sections.get("clean", "").split("\n"))
    numbered = {
        found[1]: path
        for link, path in pairs(sections.get("generations", "")).items()
        if (found := _NUMBERED.search(link))
    }
    conf = (_CONTAINER.search(path) for path in names(sections.get("containers", "")))
    return Drift(
        current=Roles.parse(pairs(sections.get("roles", ""))).current,
        generations={int(number): path for number, path in numbered.items()},
        files=tuple(
            sorted(
                path
                for path in names(sections.get("files", ""))
                if path not in copies and not _is_known(path)
            )
        ),
        containers=tuple(found[2] for found in conf if found),
        accounts=tuple(names(sections.get("accounts", ""))),
    )


def _is_known(path: str) -> bool:
    return any(fnmatch(path, pattern) for pattern in (*_STATE, *_IMPERATIVE_FILES))
