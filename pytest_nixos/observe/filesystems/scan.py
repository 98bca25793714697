"""Scans of a machine's mutable file systems; /nix, /proc, /sys and /run are left out."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pytest_nixos.observe.fact import Fact
from pytest_nixos.observe.text import NAMES, lines, names

__all__ = ["SCAN_FACTS"]

_LIMIT = 200

# One walk answers four questions: in a VM each walk takes a second or more. The store is left out:
# Nix clears these bits on everything that it adds. A name is looked up only for what does not
# belong to root.
_WALK = rf"""
walk=$(find / -xdev \( -path /nix -o -path /proc -o -path /sys -o -path /dev -o -path /run -o -path '*/containers/storage' \) -prune -o \
  \( \( -type d -perm -0002 ! -perm -1000 -printf 'directory %p\0' \) , \( -type f -perm -0002 -printf 'file %p\0' \) , \
  \( -type f -perm /6000 -printf 'setuid %p\0' \) , \
  \( \( ! -uid 0 -o ! -gid 0 \) \( -nouser -o -nogroup \) -printf 'unowned %p\0' \) \) | {NAMES} | LC_ALL=C awk '++seen[$1] <= {_LIMIT}')"""


def _walked(tag: str) -> str:
    return f"""while IFS= read -r line; do case $line in "{tag} "*) printf '%s\\n' "${{line#* }}";; esac; done <<< "$walk" """


def _first(find: str) -> str:
    """Print what a find(1) finds, at most so many. Mostly there is nothing, and bash reads the few
    names itself.
    """
    return rf"""
local -a found
mapfile -d '' -n {_LIMIT} -t found < <({find} -print0)
((${{#found[@]}})) && printf '%s\n' "${{found[@]//$'\n'/$'\1'}}"
"""


_LOOSE = r"find /etc/nixos \( ! -user root -o ! -group root -o -perm /022 \) ! -type l"
_ETC_NIXOS = f"[ -e /etc/nixos ] || return 3{_first(_LOOSE)}true"

# Where /etc is an overlay (system.etc.overlay.enable), its files come from an image and not by way of /etc/static.
_DEAD = rf"""
{_first("find /etc -xtype l")}
local target type
while read -r _ target type _; do [[ $target == /etc && $type == overlay ]] && return; done </proc/self/mounts
case $(readlink -f /etc/static) in /nix/store/*) ;; *) echo /etc/static;; esac"""

# Each file's name and its last part, apart by NUL, which no history holds on purpose. The text stays
# inside the parser: what was found must not be copied into a report.
_HISTORY = r"""
local found=3
for file in /root/.*_history /root/.local/share/fish/fish_history /home/*/.*_history /home/*/.local/share/fish/fish_history; do
  [ -f "$file" ] && [ -s "$file" ] || continue
  found=0
  total=$(wc -l < "$file") kept=$(tail -c 262144 "$file" | tr -d '\000' | wc -l)
  printf '%s\0%s\0' "$file" $((total - kept)); tail -c 262144 "$file" | tr -d '\000'; printf '\0'
done
return $found"""
#: zsh and fish write more than the command: when it was given, and which word begins it.
_NOTED = re.compile(r"^(?:: \d+:\d+;|- cmd: |\s+when: \d+$|#\d+$)")


def _history(text: str) -> list[str]:
    """List where secrets stand in shell histories, by the rules of :mod:`pytest_nixos.secrets`:
    file, line and kind.
    """
    # Loads detect-secrets, which a run without this control does not pay for.
    from pytest_nixos.secrets.scan import find_secrets

    fields = text.split("\0")
    found = []
    for file, before, history in zip(fields[::3], fields[1::3], fields[2::3], strict=False):
        commands = "\n".join(_NOTED.sub("", line) for line in history.split("\n"))
        first = int(before) if before.isdecimal() else 0
        found += [
            f"{file.strip()} line {first + hit.line}: {hit.kind}"
            for hit in find_secrets(commands, name="history.sh")
            if not hit.placeholder
        ]
    return found


_PROFILES = "/sys/kernel/security/apparmor/profiles"

SCAN_FACTS: Mapping[str, Fact] = {
    "world-writable-directories": Fact(
        prelude=_WALK,
        script=_walked("directory"),
        inline=True,
        parse=names,
        needs=("find", "tr", "awk"),
        about="directories that everybody can write to and that have no sticky bit",
    ),
    "world-writable-files": Fact(
        prelude=_WALK,
        script=_walked("file"),
        inline=True,
        parse=names,
        needs=("find", "tr", "awk"),
        about="files that everybody can write to",
    ),
    "unowned": Fact(
        prelude=_WALK,
        script=_walked("unowned"),
        inline=True,
        parse=names,
        needs=("find", "tr", "awk"),
        about="files whose owner or group does not exist",
    ),
    "setuid-outside-wrappers": Fact(
        prelude=_WALK,
        script=_walked("setuid"),
        inline=True,
        parse=names,
        needs=("find", "tr", "awk"),
        about="setuid and setgid files outside of `/run/wrappers`",
    ),
    "setuid-wrappers": Fact(
        script="[ -d /run/wrappers/bin ] || exit 3; find /run/wrappers/bin/ -type f -perm /6000 -printf '%f\\n'",
        parse=lambda text: sorted(lines(text)),
        about="names of the setuid and setgid wrappers",
        lacking="the machine has no wrappers",
    ),
    "loose-etc-nixos": Fact(
        script=_ETC_NIXOS,
        inline=True,
        parse=names,
        needs=("find",),
        about="entries of `/etc/nixos` that others than root own or can write",
        lacking="the machine has no /etc/nixos",
    ),
    "dead-etc-links": Fact(
        script=_DEAD,
        inline=True,
        parse=names,
        needs=("find",),
        about="links below `/etc` that lead nowhere",
    ),
    "history-secrets": Fact(
        script=_HISTORY,
        inline=True,
        parse=_history,
        needs=("tail", "tr", "wc"),
        about="secrets in shell histories (file, line and kind only)",
        lacking="no user has a shell history",
    ),
    "enforced-profiles": Fact(
        script=f"[ -e {_PROFILES} ] || return 3; grep -F '(enforce)' {_PROFILES}; true",
        inline=True,
        parse=lines,
        needs=("grep",),
        about="AppArmor profiles in enforce mode",
        lacking="AppArmor is not active",
    ),
    "foreign-software": Fact(
        script="[ -e /usr/local ] || [ -e /opt ] || return 0"
        + _first("find /usr/local /opt -mindepth 1 -maxdepth 2 ! -type d")
        + "true",
        inline=True,
        parse=names,
        needs=("find",),
        about="files below `/usr/local` and `/opt`",
    ),
}
