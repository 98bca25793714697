"""Running services as they are: their main processes, programs and addresses."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_nixos.observe.base import Probe, ProbeOutput

__all__ = ["UnitProcess", "addresses", "programs", "unit_processes"]

# Only variables that are asked for by name leave the guest: an environment may hold secrets.
_PROCESS = r"""
wanted={variables}
# systemctl prints a unit's properties in an order of its own, and an empty line between units.
{{ systemctl show --property=Id,MainPID -- {units}; echo; }} | while IFS= read -r line; do
  case $line in Id=*) unit=${{line#Id=}}; continue;; MainPID=*) pid=${{line#MainPID=}}; continue;; esac
  [ "${{pid:-0}}" != 0 ] && [ -d "/proc/$pid" ] || continue
  printf '%s\037%s\037%s\037%s\037' "$unit" "$pid" "$(<"/proc/$pid/oom_score_adj")" \
    "$(tr '\0' ' ' <"/proc/$pid/cmdline")"
  tr '\0' '\n' <"/proc/$pid/environ" | grep -E "^($wanted)="
  printf '\036'
  pid=0
done
true
"""

_PROGRAMS = r"""
PATH=/run/current-system/sw/bin:/run/wrappers/bin:/nix/var/nix/profiles/default/bin:/usr/local/bin:/usr/bin:/bin
for profile in /etc/profiles/per-user/*/bin /root/.nix-profile/bin /home/*/.nix-profile/bin; do PATH=$PATH:$profile; done
for name in {names}; do type -P -- "$name" >/dev/null && printf '%s\n' "$name"; done
printf 'done\n'
"""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitProcess:
    """The main process of a unit.

    :param environment: those variables that were asked for and are set.
    """

    unit: str
    pid: int
    oom_score_adj: int
    command_line: str
    environment: Mapping[str, str]


def unit_processes(
    units: Sequence[str], *, variables: Sequence[str] = (), name: str = "process"
) -> Probe[Mapping[str, UnitProcess]]:
    """Ask for the main processes of `units`; a unit without one is left out."""
    wanted = "|".join(v for v in dict.fromkeys(variables) if _NAME.fullmatch(v)) or "-"
    script = _PROCESS.format(units=shlex.join(dict.fromkeys(units)), variables=shlex.quote(wanted))
    return Probe(name=name, script=script if units else ":", parse=_parse_processes)


def programs(names: Sequence[str], *, name: str = "program") -> Probe[Sequence[str] | None]:
    """Ask which of `names` are programs that root or a user finds on PATH; ``None`` if the answer is cut."""
    script = _PROGRAMS.format(names=shlex.join(dict.fromkeys(names)))
    return Probe(name=name, script=script, parse=_parse_programs)


def addresses(*, name: str = "address") -> Probe[Sequence[str] | None]:
    """Ask for all addresses with prefix length (``10.0.0.41/19``); ``None`` if ip(8) does not answer."""
    return Probe(name=name, script="ip -json address show", parse=_parse_addresses)


def _parse_processes(output: ProbeOutput) -> Mapping[str, UnitProcess]:
    found: dict[str, UnitProcess] = {}
    for record in output.text.split("\x1e"):
        fields = record.lstrip("\n").split("\x1f", 4)
        if len(fields) != 5 or not fields[1].isdecimal():
            continue
        unit, pid, score, command_line, environment = fields
        assignments = (line.partition("=") for line in environment.splitlines())
        found[unit] = UnitProcess(
            unit=unit,
            pid=int(pid),
            oom_score_adj=int(score) if re.fullmatch(r"-?\d+", score) else 0,
            command_line=command_line.strip(),
            environment={key: value for key, sign, value in assignments if sign},
        )
    return found


def _parse_programs(output: ProbeOutput) -> Sequence[str] | None:
    found = output.text.split()
    return tuple(found[:-1]) if found and found[-1] == "done" else None


def _parse_addresses(output: ProbeOutput) -> Sequence[str] | None:
    try:
        links: Any = json.loads(output.text)
        return tuple(
            f"{info['local']}/{info['prefixlen']}"
            for link in links
            for info in link.get("addr_info", ())
            if "local" in info and "prefixlen" in info
        )
    except (ValueError, TypeError, AttributeError):
        return None
