"""Drift: what a host has become beside what its flake says: another system, files of ``/etc`` that
nobody declared, containers and accounts made by hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

import msgspec

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.generation import SHOW_ROLES, Roles
from pytest_nixos.observe.text import names, pairs

__all__ = ["Drift", "drift"]

# NixOS leaves links in /etc, and copies what is to have a mode of its own; /etc/.clean names the
# copies (nixos/modules/system/etc/setup-etc.pl). Where /etc is an overlay
# (system.etc.overlay.enable), what is beside the declared files lies in its upper directory, which
# the initrd may have mounted below /sysroot. A link into the store or to what comes with the boot is
# somebody's declaration (tmpfiles, secrets); one into a home is not.
_READ = rf"""
show() {{ local name; for name; do printf '%s\n' "${{name//$'\n'/$'\001'}}"; done; }}
title roles
{SHOW_ROLES}
title generations
for link in /nix/var/nix/profiles/system-*-link; do
  [ -L "$link" ] && printf '%s=%s\n' "$link" "$(readlink -m "$link")"
done
title specialisations
for link in /nix/var/nix/profiles/system-*-link/specialisation/*; do
  printf '%s=%s\n' "$(readlink -m "$link")" "$(readlink -m "${{link%/specialisation/*}}")"
done
place=/etc
while read -r _ target type options _; do
  [[ $target == /etc && $type == overlay ]] || continue
  place=; [[ ,$options, =~ ,upperdir=([^,]*), ]] || continue
  place=${{BASH_REMATCH[1]}}; [[ -d $place ]] || place=${{place#/sysroot}}
  [[ -d $place ]] || exit 4
done </proc/self/mounts
files=()
if [[ -n $place ]]; then
  mapfile -d '' -t files < <(find "$place" -xdev -path "$place/nixos" -prune -o \
    \( -type f -o -type l \( -lname '/home/*' -o -lname '/root/*' -o -lname '/tmp/*' -o -lname '/var/tmp/*' \) \) -printf '%P\0')
  wait $! || exit 5
fi
title files; show "${{files[@]}}"
title clean
[ -r /etc/.clean ] && printf '%s\n' "$(</etc/.clean)"
title containers
for file in /etc/nixos-containers/*.conf; do [ -f "$file" ] && [ ! -L "$file" ] && show "$file"; done
title accounts
while IFS=: read -r account _ || [[ -n $account ]]; do printf '%s\n' "$account"; done </etc/passwd
title complete
true
"""
_NUMBERED = re.compile(r"/system-([0-9]{1,9})-link$")
_CONTAINER = re.compile(r"/nixos-containers/([^/]+)\.conf$")
# DRIFT-003 tells these.
_IMPERATIVE_FILES = ("nixos-containers/*.conf",)
# Comments, and what nss_compat(5) reads: none of them is an account.
_NO_ACCOUNT = ("#", "+", "-")
#: What NixOS itself and its modules keep in ``/etc`` as state, by who writes it; ``**`` stands for
#: all that lies below.
_STATE = (
    # The activation of NixOS: update-users-groups.pl, setup-etc.pl, stage-2-init.sh.
    *(".clean", ".updated", ".pwd.lock", "NIXOS", "passwd", "group", "shadow", "gshadow"),
    *("passwd-", "group-", "shadow-", "gshadow-", "subuid", "subgid", "subuid-", "subgid-"),
    # What systemd keeps: machine-id(5), systemd-firstboot(1), timedatectl(1), systemd-creds(1).
    *("machine-id", "machine-info", "hostname", "adjtime", "localtime", "locale.conf"),
    *("vconsole.conf", "credstore/*", "credstore.encrypted/*", "mtab"),
    # Resolvers: resolvconf(8), and dnsmasq's module.
    *("resolv.conf", "resolv.conf.bak", "dnsmasq-conf.conf", "dnsmasq-resolv.conf"),
    # Keys and state of services that keep them there by their own default.
    *("ssh/ssh_host_*_key", "ssh/ssh_host_*_key.pub", "ssh/ssh_host_*_key-cert.pub"),
    *("NetworkManager/system-connections/*", "bind/rndc.key"),
    # From 26.05 on the second, with the keys and certificates of networks beside it.
    *("wpa_supplicant.conf", "wpa_supplicant/*"),
    *("lvm/archive/*", "lvm/backup/*", "lvm/cache/*", "zfs/zpool.cache", "secureboot/**"),
    *("cups/**", "printcap", "cni/net.d/*", "rancher/node/password", "rancher/k3s/k3s.yaml"),
    *("docker/key.json", "mullvad-vpn/*", "iscsi/initiatorname.iscsi", "krb5.keytab"),
)


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """What a guest is and has that its flake may not say.

    :param current: store path of the system that runs, ``""`` if there is none.
    :param generations: number to store path of what the system profile keeps.
    :param specialisations: of these: store path to that of the system that it belongs to.
    :param files: of ``/etc``, by their path below it: neither links of NixOS, nor copies that it
        keeps, nor known state.
    :param containers: names of containers that nixos-container(8) made.
    :param accounts: names in ``/etc/passwd``.
    """

    current: str
    generations: Mapping[int, str]
    specialisations: Mapping[str, str]
    files: tuple[str, ...]
    containers: tuple[str, ...]
    accounts: tuple[str, ...]


def drift(*, name: str = "drift") -> Probe[Drift | None]:
    """Ask for what may have drifted; ``None`` where the answer is not whole."""
    return Probe(name=name, script=f"shopt -s nullglob\n{_READ}", parse=_parse)


def _parse(output: ProbeOutput) -> Drift | None:
    sections = dict(output.records)
    accounts = [
        name for name in names(sections.get("accounts", "")) if not name.startswith(_NO_ACCOUNT)
    ]
    # Where not even root is listed, something that was asked has died.
    if "complete" not in sections or "root" not in accounts:
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
        specialisations=pairs(sections.get("specialisations", "")),
        files=tuple(
            sorted(
                path
                for path in names(sections.get("files", ""))
                if path not in copies and not _is_known(path)
            )
        ),
        containers=tuple(found[1] for found in conf if found),
        accounts=tuple(accounts),
    )


def _is_known(path: str) -> bool:
    return any(_fits(path, pattern) for pattern in (*_STATE, *_IMPERATIVE_FILES))


def _fits(path: str, pattern: str) -> bool:
    """Match part by part: no ``*`` reaches into a directory."""
    parts, wanted = path.split("/"), pattern.split("/")
    if wanted[-1] == "**":
        return parts[: len(wanted) - 1] == wanted[:-1] and len(parts) >= len(wanted)
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
