"""The running system: release, kernel, its command line and modules, and time."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.sections import split_sections

__all__ = ["SystemState", "system"]

_READ = r"""
show() { [ -r "$2" ] && printf '=%s\n%s\n' "$1" "$(<"$2")"; }
show os-release /etc/os-release
show nixos-version /run/current-system/nixos-version
show kernel /proc/sys/kernel/osrelease
show host-name /proc/sys/kernel/hostname
show boot-id /proc/sys/kernel/random/boot_id
show command-line /proc/cmdline
show modules /proc/modules
show uptime /proc/uptime
show tainted /proc/sys/kernel/tainted
show machine-id /etc/machine-id
[ -e /run/systemd/timesync/synchronized ] && printf '=synchronised\n'
printf '=time-zone\n'; readlink /etc/localtime
printf '=virtualisation\n'; systemd-detect-virt
true
"""

# A parameter may hold blanks in double quotes.
_PARAMETER = re.compile(r'(?:[^\s"]|"[^"]*")+')


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemState:
    """What runs.

    :param os_release: os-release(5), ``ID``, ``VERSION_ID``, ``VERSION_CODENAME``, ...
    :param parameters: the kernel's command line, in order.
    :param modules: loaded modules; empty where the kernel has none.
    :param uptime_s: seconds since boot, ``None`` if unknown.
    :param timesyncd_synchronised: whether systemd-timesyncd has set the clock since boot; other time services
        do not tell here.
    :param time_zone: ``Europe/Berlin``, ``""`` for UTC by default.
    :param virtualisation: in systemd-detect-virt's words, ``none`` on bare metal, ``""`` if unknown.
    """

    os_release: Mapping[str, str]
    nixos_version: str
    kernel: str
    host_name: str
    boot_id: str
    machine_id: str
    parameters: tuple[str, ...]
    modules: frozenset[str]
    tainted: int | None
    uptime_s: float | None
    timesyncd_synchronised: bool
    time_zone: str
    virtualisation: str

    def parameter(self, name: str) -> str | None:
        """Return the last value of a parameter, ``""`` for a bare word, ``None`` if it is not there."""
        for parameter in reversed(self.parameters):
            key, _, value = parameter.partition("=")
            # The kernel takes dashes and underscores for the same.
            if key.replace("-", "_") == name.replace("-", "_"):
                return value.strip('"')
        return None


def system(*, name: str = "system") -> Probe[SystemState]:
    """Ask what system runs."""
    return Probe(name=name, script=_READ, parse=_parse)


def _parse(output: ProbeOutput) -> SystemState:
    sections = split_sections(output.text)

    def text(title: str) -> str:
        return "\n".join(sections.get(title, ())).strip()

    tainted = text("tainted")
    return SystemState(
        os_release=dict(_assignment(line) for line in sections.get("os-release", ())),
        nixos_version=text("nixos-version"),
        kernel=text("kernel"),
        host_name=text("host-name"),
        boot_id=text("boot-id"),
        machine_id=text("machine-id"),
        parameters=tuple(_PARAMETER.findall(text("command-line"))),
        modules=frozenset(line.split(" ")[0] for line in sections.get("modules", ()) if line),
        tainted=int(tainted) if tainted.isdecimal() else None,
        uptime_s=_seconds(text("uptime")),
        timesyncd_synchronised="synchronised" in sections,
        time_zone=text("time-zone").partition("zoneinfo/")[2],
        virtualisation=text("virtualisation"),
    )


def _assignment(line: str) -> tuple[str, str]:
    key, _, value = line.partition("=")
    try:
        words = shlex.split(value)
    except ValueError:
        words = [value]
    return key, " ".join(words)


def _seconds(text: str) -> float | None:
    first = text.split(" ", maxsplit=1)[0]
    return float(first) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", first) else None
