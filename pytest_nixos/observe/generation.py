"""Generations: what is running, what was booted, what the profile says, what boots next, and
what is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.boot_menu import BOOT_MENU, SEPARATOR
from pytest_nixos.observe.fact import Fact
from pytest_nixos.observe.text import lines, names, pairs

__all__ = [
    "GENERATION_FACTS",
    "PROFILE",
    "SHOW_ROLES",
    "BootMenu",
    "GenerationState",
    "Roles",
    "generations",
]

Json = Any
#: The system profile; its generations lie beside it as ``system-<number>-link``.
PROFILE = "/nix/var/nix/profiles/system"

#: Prints ``role=toplevel`` for each of the three links that leads somewhere: one program for all.
SHOW_ROLES = r"""
show_roles() {
  local -a roles=() paths=() ends=(); local role path index
  for role in current booted profile; do
    path=/run/$role-system; [ $role = profile ] && path=/nix/var/nix/profiles/system
    [ -e "$path" ] && roles+=("$role") paths+=("$path")
  done
  [ ${#paths[@]} -gt 0 ] && mapfile -t ends < <(readlink -e -- "${paths[@]}")
  for index in "${!roles[@]}"; do printf '%s=%s\n' "${roles[index]}" "${ends[index]-}"; done
}
show_roles
"""

_READ = rf"""{BOOT_MENU}
title roles
{SHOW_ROLES}
title links
links=()
for link in {PROFILE} {PROFILE}-*-link; do [ -L "$link" ] && links+=("$link"); done
if [ ${{#links[@]}} -gt 0 ]; then
  exec {{resolved}}< <(readlink -m "${{links[@]}}"); exec {{direct}}< <(readlink "${{links[@]}}")
  for link in "${{links[@]}}"; do
    read -r -u $resolved end; read -r -u $direct next
    printf '%s\t%s\t%s\n' "$link" "$next" "$end"
  done
fi
for system in current booted; do
  [ -r /run/$system-system/nixos-version ] && {{ title $system-version; printf '%s\n' "$(</run/$system-system/nixos-version)"; }}
  title $system-files
  for file in kernel initrd init kernel-modules; do
    [ -e /run/$system-system/$file ] && printf '%s\n' $file
  done
done
shopt -s nullglob
title specialisations; for path in /run/current-system/specialisation/*; do printf '%s\n' "${{path##*/}}"; done
title cmdline; printf '%s\n' "$(</proc/cmdline)"
title boot-default; boot_default
true
"""

# -ef follows links and compares files: no program for each of six paths.
_KERNEL = r"""
[ -e /run/booted-system ] || return 3
for part in kernel initrd kernel-modules; do
  [ -e /run/booted-system/$part ] || continue
  [ /run/booted-system/$part -ef /run/current-system/$part ] || printf '%s\n' "$part"
done"""

_PREVIOUS = r"""
for link in /nix/var/nix/profiles/system-*-link; do if [ -L "$link" ]; then printf '%s\n' "$link"; fi; done"""

# Root reads the store by itself, whatever its environment says of a daemon: one that does not answer
# says nothing about the path.
_VERIFY = r"""
local system said
system=$(cd -P /run/current-system && printf '%s' "$PWD")
if said=$(nix-store --store auto --verify-path "$system" 2>&1); then echo intact; return 0; fi
case $said in *"cannot connect to "*) return 1;; esac
echo broken"""

# What `nix-store --gc --print-roots` tells of roots outside of Nix's own directories, which are the
# links that links below these lead to (findRoots of gc.cc). It looks into all processes besides, at
# ten times the cost, and removes links that lead nowhere: a probe only reads.
_ROOTS = r"""
[ -d /nix/var/nix/gcroots ] || exit 127
places=(/nix/var/nix/gcroots); [ -d /nix/var/nix/profiles ] && places+=(/nix/var/nix/profiles)
mapfile -d '' -t links < <(find -P "${places[@]}" -type l -printf '%p\0%l\0'); wait $! || exit 5
roots=() ends=()
for ((i = 0; i + 1 < ${#links[@]}; i += 2)); do
  root=${links[i + 1]}
  [[ $root == /* ]] || root=${links[i]%/*}/$root
  [[ $root != */../* && $root != */./* ]] || root=$(realpath -s -m -- "$root") || exit 5
  case $root in
    /nix/store/*|/proc/*|/nix/var/nix/profiles/*|/nix/var/nix/gcroots/*|/run/*) ;;
    */.direnv/*|*/.local/state/nix/profiles/*|*/.local/state/home-manager/*) ;;
    *) if [[ -L $root ]]; then roots+=("$root"); fi;;
  esac
done
((${#roots[@]})) || exit 0
mapfile -d '' -t ends < <(readlink -z -- "${roots[@]}"); wait $! || exit 5
for i in "${!roots[@]}"; do
  end=${ends[i]#/nix/store/}
  if [[ ${ends[i]} == /nix/store/?* && -e /nix/store/${end%%/*} ]]; then printf '%s\n' "${roots[i]//$'\n'/$'\1'}"; fi
done
true"""

_IMPERATIVE = r"""
for profile in /nix/var/nix/profiles/default /nix/var/nix/profiles/per-user/*/profile /root/.nix-profile \
    /home/*/.nix-profile /root/.local/state/nix/profiles/profile /home/*/.local/state/nix/profiles/profile; do
  [ -e "$profile/manifest.nix" ] || [ -e "$profile/manifest.json" ] || continue
  nix-env --query --profile "$profile" | sed "s|^|$profile |"
  if [ -e "$profile/manifest.json" ]; then
    grep -o '"storePaths":\["[^"]*"' "$profile/manifest.json" | sed "s|.*/nix/store/[a-z0-9]*-|$profile |; s|\"$||"
  fi
done
true"""

_CHANNELS = r"""
for file in /root/.nix-channels /home/*/.nix-channels; do [ -s "$file" ] && sed "s|^|$file |" "$file"; done
true"""

_NUMBERED = re.compile(r"/system-([0-9]{1,9})-link$")
_ENTRY = re.compile(r"nixos-generation-(\d+)")
_INIT = re.compile(r"\binit=(/nix/store/[^/\s]+)/init")


class Roles(msgspec.Struct, frozen=True, kw_only=True):
    """Toplevels by role, as store paths; ``""`` for a link that is missing or leads nowhere.

    :param current: what runs, ``/run/current-system``.
    :param booted: what was booted, ``/run/booted-system``; a container may have none.
    :param profile: what the system profile names; a VM without boot loader has none before its
        first switch.
    """

    current: str
    booted: str
    profile: str

    @classmethod
    def parse(cls, fields: Mapping[str, str]) -> Roles:
        """Read what :data:`SHOW_ROLES` prints, as pairs."""
        return cls(**{role: fields.get(role, "") for role in ("current", "booted", "profile")})


class BootMenu(msgspec.Struct, frozen=True, kw_only=True):
    """What the boot loader starts if nobody chooses.

    :param loader: ``systemd-boot``, ``grub`` or ``extlinux``.
    :param toplevel: store path of the default entry, ``""`` if the menu names none that can be
        read.
    :param generation: its number, where the menu names it.
    """

    loader: str
    path: str
    toplevel: str
    generation: int | None


class GenerationState(msgspec.Struct, frozen=True, kw_only=True):
    """Where the guest stands among its generations.

    :param current: toplevel that is active; `booted` and `profile` likewise, see :class:`Roles`.
    :param profile_generation: number of the generation that the profile links to.
    :param generations: number to toplevel.
    :param boot_menu: ``None`` if there is no boot menu that can be read.
    :param init: toplevel on the kernel's command line, ``""`` if none.
    """

    current: str
    booted: str
    profile: str
    profile_generation: int | None
    generations: Mapping[int, str]
    current_version: str
    booted_version: str
    specialisations: tuple[str, ...]
    command_line: str
    init: str
    boot_menu: BootMenu | None
    current_files: tuple[str, ...]

    @property
    def current_generation(self) -> int | None:
        """Number of the active toplevel; the profile's own where several generations are the
        same.
        """
        if self.profile_generation is not None and self.current == self.profile:
            return self.profile_generation
        numbers = [n for n, toplevel in self.generations.items() if toplevel == self.current]
        return max(numbers, default=None)

    @property
    def is_settled(self) -> bool:
        """Whether the profile and the running system are the same toplevel."""
        return bool(self.current) and self.current == self.profile


def generations(*, name: str = "generation") -> Probe[GenerationState]:
    """Ask for all generations, links and the boot menu."""
    return Probe(name=name, script=_READ, parse=_parse)


def _parse(output: ProbeOutput) -> GenerationState:
    sections = output.sections
    roles = Roles.parse(pairs("\n".join(sections.get("roles", ()))))
    links = {}
    for line in sections.get("links", ()):
        fields = line.split("\t")
        if len(fields) == 3:
            links[fields[0]] = (fields[1], fields[2])
    numbered = {int(m[1]): end for link, (_, end) in links.items() if (m := _NUMBERED.search(link))}
    number = _NUMBERED.search(f"/{links.get(PROFILE, ('', ''))[0]}")
    command_line = "\n".join(sections.get("cmdline", ()))
    init = _INIT.search(command_line)
    return GenerationState(
        current=roles.current,
        booted=roles.booted,
        profile=roles.profile,
        profile_generation=int(number[1]) if number else None,
        generations=dict(sorted(numbered.items())),
        current_version=" ".join(sections.get("current-version", ())),
        booted_version=" ".join(sections.get("booted-version", ())),
        specialisations=tuple(line for line in sections.get("specialisations", ()) if line),
        command_line=command_line.strip(),
        init=init[1] if init else "",
        boot_menu=_boot_menu(sections.get("boot-default", ()), numbered),
        current_files=tuple(sections.get("current-files", ())),
    )


def _boot_menu(found: Sequence[str], numbered: Mapping[int, str]) -> BootMenu | None:
    fields = "".join(found).split(SEPARATOR)
    if len(fields) != 4:
        return None
    loader, path, entry, toplevel = fields
    numbers = [number for number, system in numbered.items() if toplevel and system == toplevel]
    named = _ENTRY.search(entry)
    # Two generations may be one system: the entry's name tells which of them is meant, where it has
    # a number.
    number = int(named[1]) if named and int(named[1]) in numbers else max(numbers, default=None)
    return BootMenu(loader=loader, path=path, toplevel=toplevel, generation=number)


def _agree(text: str) -> list[str]:
    """Return the distinct systems of the three roles; a role without one counts as another
    system.
    """
    found = pairs(text)
    return sorted({found.get(r) or f"no {r} system" for r in ("booted", "current", "profile")})


GENERATION_FACTS: Mapping[str, Fact] = {
    "previous": Fact(
        script=_PREVIOUS,
        parse=lambda text: max(0, len(lines(text)) - 1),
        about="number of generations of the system profile beside the newest",
    ),
    "systems": Fact(
        script=SHOW_ROLES,
        parse=_agree,
        about="the systems that are booted, current and the profile's; one where all agree",
    ),
    "reboot-pending": Fact(
        script=_KERNEL,
        inline=True,
        parse=lines,
        about="parts (kernel, initrd, modules) in which the booted and the current system differ",
        lacking="the machine does not say what it was booted from",
    ),
    "kernel-release": Fact(
        script="read -r release < /proc/sys/kernel/osrelease && printf '%s\\n' \"$release\"",
        inline=True,
        parse=lambda text: ".".join(text.strip().split(".")[:2]) or None,
        about="series of the running kernel, for example `6.12`",
    ),
    "system-path": Fact(
        script=_VERIFY,
        inline=True,
        parse=lambda text: text.strip(),
        needs=("nix-store",),
        about="whether the running system's own store path is intact",
    ),
    "stray-roots": Fact(
        script=_ROOTS,
        parse=names,
        needs=("find", "readlink"),
        about="garbage collector roots outside of profiles, such as forgotten `result` links",
    ),
    "imperative-packages": Fact(
        script=_IMPERATIVE,
        inline=True,
        parse=lines,
        needs=("nix-env", "grep", "sed"),
        about="packages installed by hand with nix-env or nix profile",
    ),
    "channels": Fact(
        script=_CHANNELS,
        inline=True,
        parse=lines,
        needs=("sed",),
        about="channels that users subscribe to",
    ),
}
