"""Services that should listen on an open port and do not stay up: the cause of its silence."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from pytest_nixos import HostConfig, Machine, PortRange, observe

__all__ = ["NAMED", "parse_named", "servers_of", "struggling"]

_PORT = re.compile(r"(?<![\w.])(\d{2,5})(?![\w.])")
_FILE = re.compile(r"/(?:nix/store|etc)/[^\s'\";:,]+")
# They name ports to open them.
_OPENING = frozenset({"firewall.service", "nftables.service"})
_COMMANDS = ("ExecStartPre", "ExecStart", "Environment", "EnvironmentFile")
#: Prints "PORT FILE" of each that a configuration or a start script names; of no program's own file.
NAMED = """
for file in {files}; do
  [[ -f $file && $(stat -L -c %s -- "$file") -lt 262144 ]] || continue
  for port in {ports}; do grep -qwF -e "$port" -- "$file" && printf '%s %s\\n' "$port" "$file"; done
done
true
"""


def struggling(host: HostConfig, states: Mapping[str, observe.UnitState]) -> tuple[str, ...]:
    """Return the services of the host that have failed, or start over and over."""
    return tuple(
        name
        for name, unit in host.units.items()
        if unit.enabled and name.endswith(".service") and name in states and name not in _OPENING
        if states[name].is_failed or states[name].is_restless
    )


def servers_of(
    idle: Sequence[PortRange], host: HostConfig, down: Iterable[str], machine: Machine
) -> Mapping[PortRange, tuple[str, ...]]:
    """Return for each port without a listener the services of `down` that name it: in a command, in
    their environment, or in a file that these name.

    :param down: as :func:`struggling` gives it.
    """
    texts = {
        name: [t for key in _COMMANDS for t in host.units[name].setting("Service", key)]
        for name in down
    }
    texts = {name: said for name, said in texts.items() if said}
    ports = [each for each in idle if each.first <= each.last]
    if not (texts and ports):
        return {}
    named = _named_in_files(texts, ports, machine)
    found: dict[PortRange, tuple[str, ...]] = {}
    for each in ports:
        servers = [
            name
            for name, said in texts.items()
            if any(int(port) in each for text in said for port in _PORT.findall(text))
            or any(port in each for file in _files(said) for port in named.get(file, ()))
        ]
        if servers:
            found[each] = tuple(servers)
    return found


def _named_in_files(
    texts: Mapping[str, Sequence[str]], idle: Sequence[PortRange], machine: Machine
) -> Mapping[str, frozenset[int]]:
    """Ask which of the files that the services name, name one of the ports; of a range its first."""
    files = sorted({file for said in texts.values() for file in _files(said)})
    if not files:
        return {}
    script = NAMED.format(
        files=" ".join(map(shlex.quote, files)), ports=" ".join(str(r.first) for r in idle)
    )
    return parse_named(machine.run(script).stdout_text)


def parse_named(text: str) -> Mapping[str, frozenset[int]]:
    """Read what :data:`NAMED` prints: file to ports."""
    found: dict[str, frozenset[int]] = {}
    for line in text.splitlines():
        port, _, file = line.partition(" ")
        if port.isdecimal() and file:
            found[file] = found.get(file, frozenset()) | {int(port)}
    return found


def _files(texts: Iterable[str]) -> list[str]:
    return [file for text in texts for file in _FILE.findall(text)]
