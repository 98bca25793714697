"""Generations: what is running, what was booted, what the profile says, and what boots next."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.boot_menu import BOOT_MENU, SEPARATOR
from pytest_nixos.observe.sections import split_sections

__all__ = ["BootMenu", "GenerationState", "generations"]

# `readlink -v` of many links at once prints what they hold, one a line; a missing one is skipped, so each gets
# its name printed first by the loop. `readlink -f` is one program for all toplevels.
_READ = (
    BOOT_MENU
    + r"""
shopt -s nullglob
links=(/run/current-system /run/booted-system /nix/var/nix/profiles/system /nix/var/nix/profiles/system-*-link)
present=(); for link in "${links[@]}"; do [ -L "$link" ] && present+=("$link"); done
printf '=links\n'
if [ ${#present[@]} -gt 0 ]; then
  exec {resolved}< <(readlink -m "${present[@]}"); exec {direct}< <(readlink "${present[@]}")
  for link in "${present[@]}"; do
    read -r -u $resolved end; read -r -u $direct next
    printf '%s\t%s\t%s\n' "$link" "$next" "$end"
  done
fi
for system in current booted; do
  [ -r /run/$system-system/nixos-version ] && printf '=%s-version\n%s\n' $system "$(</run/$system-system/nixos-version)"
  [ -r /run/$system-system/kernel-params ] && printf '=%s-params\n%s\n' $system "$(</run/$system-system/kernel-params)"
  printf '=%s-files\n' $system
  for file in kernel initrd init kernel-modules; do
    [ -e /run/$system-system/$file ] && printf '%s\n' $file
  done
done
printf '=specialisations\n'; for path in /run/current-system/specialisation/*; do printf '%s\n' "${path##*/}"; done
printf '=cmdline\n%s\n' "$(</proc/cmdline)"
printf '=boot-default\n%s\n' "$(boot_default)"
true
"""
)

_NUMBERED = re.compile(r"/system-(\d+)-link$")
_ENTRY = re.compile(r"nixos-generation-(\d+)")
_INIT = re.compile(r"\binit=(/nix/store/[^/\s]+)/init")


@dataclass(frozen=True, slots=True, kw_only=True)
class BootMenu:
    """What the boot loader starts if nobody chooses.

    :param loader: ``systemd-boot``, ``grub`` or ``extlinux``.
    :param toplevel: store path of the default entry, ``""`` if the menu names none that can be read.
    :param generation: its number, where the menu names it.
    """

    loader: str
    path: str
    toplevel: str
    generation: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationState:
    """Where the guest stands among its generations.

    :param current: toplevel that is active (``/run/current-system``), ``""`` if the link is missing.
    :param booted: toplevel that booted (``/run/booted-system``), ``""`` in a container that has none.
    :param profile: toplevel of the system profile, ``""`` where there is no profile (a VM without boot
        loader before its first switch).
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
        """Number of the active toplevel; the profile's own where several generations are the same."""
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
    sections = split_sections(output.text)
    links = {}
    for line in sections.get("links", ()):
        fields = line.split("\t")
        if len(fields) == 3:
            links[fields[0]] = (fields[1], fields[2])
    numbered = {int(m[1]): end for link, (_, end) in links.items() if (m := _NUMBERED.search(link))}
    profile_link, profile = links.get("/nix/var/nix/profiles/system", ("", ""))
    number = _NUMBERED.search(f"/{profile_link}")
    command_line = "\n".join(sections.get("cmdline", ()))
    init = _INIT.search(command_line)
    return GenerationState(
        current=links.get("/run/current-system", ("", ""))[1],
        booted=links.get("/run/booted-system", ("", ""))[1],
        profile=profile,
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


def _boot_menu(lines: Sequence[str], numbered: Mapping[int, str]) -> BootMenu | None:
    fields = "".join(lines).split(SEPARATOR)
    if len(fields) != 4:
        return None
    loader, path, entry, toplevel = fields
    numbers = [number for number, system in numbered.items() if toplevel and system == toplevel]
    named = _ENTRY.search(entry)
    # Two generations may be one system: the entry's name tells which of them is meant, where it has a number.
    number = int(named[1]) if named and int(named[1]) in numbers else max(numbers, default=None)
    return BootMenu(loader=loader, path=path, toplevel=toplevel, generation=number)
