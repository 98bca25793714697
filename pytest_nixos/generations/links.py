"""Where a machine's generation links point, and where each verb leaves them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self

from pytest_nixos.generations.units import STATE_QUERY, UNIT_QUERY, parse_states, parse_units
from pytest_nixos.generations.verb import Verb
from pytest_nixos.observe.boot_menu import BOOT_MENU
from pytest_nixos.observe.generation import PROFILE, SHOW_ROLES, Roles
from pytest_nixos.observe.systemd.unit import UnitState

__all__ = [
    "GENERATIONS_QUERY",
    "LOOK",
    "LOOK_WITH_STATES",
    "LOOK_WITH_UNITS",
    "PROFILE",
    "Generation",
    "Links",
    "Moment",
]

_UNITS_MARK = "==units=="
_STATES_MARK = "==states=="

# A program takes an emulated guest as long as all that bash does here.
LOOK = f"""{BOOT_MENU}
{SHOW_ROLES}
default=$(boot_default)
modules=()
for path in /run/current-system/kernel-modules/lib/modules/*; do [ -e "$path" ] && modules+=("${{path##*/}}"); done
cursor=$(journalctl --quiet --lines=0 --show-cursor 2>/dev/null)
[[ $cursor == *'-- cursor: '* ]] && cursor=${{cursor##*-- cursor: }} || cursor=
printf 'default=%s\\n' "${{default##*$'\\x1f'}}"
printf 'boot=%s\\n' "$(</proc/sys/kernel/random/boot_id)"
printf 'kernel=%s\\n' "$(</proc/sys/kernel/osrelease)"
printf 'modules=%s\\n' "${{modules[*]}}"
printf 'cursor=%s\\n' "$cursor"
"""
LOOK_WITH_UNITS = f"""{LOOK}
printf 'up=%s\\n' "$(</proc/uptime)"
echo '{_UNITS_MARK}'
{UNIT_QUERY}
"""
LOOK_WITH_STATES = f"""{LOOK}
printf 'up=%s\\n' "$(</proc/uptime)"
echo '{_STATES_MARK}'
{STATE_QUERY}
"""
GENERATIONS_QUERY = f"""
for link in {PROFILE}-*-link; do
  [ -L "$link" ] || continue
  path=$(readlink "$link")
  release=$(cat "$path/nixos-version" 2>/dev/null)
  for modules in "$path"/kernel-modules/lib/modules/*; do kernel=${{modules##*/}}; done
  [ "$kernel" != '*' ] || kernel=
  printf '%s\\t%s\\t%s\\t%s\\t%s\\n' "${{link#{PROFILE}-}}" "$path" "$(stat -c %Y "$link")" "$kernel" "$release"
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Toplevels by role, as store paths.

    :param current: what runs, ``/run/current-system``.
    :param booted: what was booted, ``/run/booted-system``.
    :param profile: what the system profile names, ``""`` if there is no profile.
    :param default: what boots next, ``""`` where no boot loader tells (a VM that boots its kernel
        directly).
    """

    current: str
    booted: str
    profile: str
    default: str

    def after(self, verb: Verb, toplevel: str) -> Self:
        """Return where `verb` of `toplevel` has to leave the links, as ``nixos-rebuild`` uses it.

        ``switch`` moves all but what was booted, ``test`` only what runs, ``boot`` all but what
        runs.
        """
        default = toplevel if self.default else ""
        if verb is Verb.SWITCH:
            return replace(self, current=toplevel, profile=toplevel, default=default)
        if verb is Verb.BOOT:
            return replace(self, profile=toplevel, default=default)
        if verb is Verb.TEST:
            return replace(self, current=toplevel)
        return self

    def after_boot(self) -> Self:
        """Return where a reboot has to leave the links: the boot default runs."""
        runs = self.default or self.booted
        return replace(self, current=runs, booted=runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One generation of the system profile.

    :param created: when its link was made, UTC.
    :param kernel: release of its kernel's modules, ``""`` where it has none (a container).
    :param release: what ``nixos-version`` would print.
    """

    number: int
    toplevel: str
    created: datetime
    kernel: str
    release: str

    @classmethod
    def parse_all(cls, text: str) -> tuple[Self, ...]:
        """Read what :data:`GENERATIONS_QUERY` prints, oldest first."""
        found = []
        for line in text.splitlines():
            parts = line.split("\t")
            number = parts[0].removesuffix("-link")
            if len(parts) == 5 and number.isdecimal() and parts[2].isdecimal():
                found.append(
                    cls(
                        number=int(number),
                        toplevel=parts[1],
                        created=datetime.fromtimestamp(int(parts[2]), tz=UTC),
                        kernel=parts[3],
                        release=parts[4],
                    )
                )
        return tuple(sorted(found, key=lambda generation: generation.number))


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A machine at one moment: its links, its units, and where its journal stood.

    :param boot: id of the boot, ``/proc/sys/kernel/random/boot_id``.
    :param cursor: of the journal's last entry, ``""`` if it has none.
    :param kernel: release of the kernel that runs.
    :param modules: kernel releases for which the current system has modules, none in a container.
    :param at_s: when it was, in seconds as ``/proc/uptime`` counts them; 0 where nobody asked.
    """

    links: Links
    units: Mapping[str, UnitState]
    boot: str
    cursor: str
    kernel: str
    modules: tuple[str, ...]
    at_s: float = 0.0

    @property
    def kernel_warning(self) -> str:
        """Why modules may be missing until the next boot, ``""`` if they are not."""
        if not self.modules or self.kernel in self.modules:
            return ""
        return (
            f"the running kernel is {self.kernel}, and the current system has modules for"
            f" {', '.join(self.modules)} only: none can be loaded before a reboot"
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what :data:`LOOK` prints, with units or states after it."""
        head, _, units = text.partition(f"{_UNITS_MARK}\n")
        head, _, states = head.partition(f"{_STATES_MARK}\n")
        fields = dict(line.partition("=")[::2] for line in head.splitlines())
        roles = Roles.parse(fields)
        return cls(
            links=Links(
                current=roles.current,
                booted=roles.booted,
                profile=roles.profile,
                default=fields.get("default", ""),
            ),
            units=parse_states(states) if states else parse_units(units),
            boot=fields.get("boot", ""),
            cursor=fields.get("cursor", ""),
            kernel=fields.get("kernel", ""),
            modules=tuple(fields.get("modules", "").split()),
            at_s=_seconds(fields.get("up", "")),
        )


def _seconds(uptime: str) -> float:
    words = uptime.split()
    return float(words[0]) if words and re.fullmatch(r"\d+(\.\d+)?", words[0]) else 0.0
