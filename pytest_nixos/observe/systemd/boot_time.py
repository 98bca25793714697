"""How long the boot took: by phase, by unit, and the chain of units that it waited for.

The same arithmetic as ``systemd-analyze time``, ``blame`` and ``critical-chain`` (src/analyze of
systemd), from properties that every systemd has, so that one round trip answers all three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.systemd.bus import ASK_UNITS, ask_units, read_units
from pytest_nixos.observe.systemd.unit import parse_show
from pytest_nixos.observe.text import split_lines, whole

__all__ = ["BootTime", "UnitTime", "boot_time"]

_US = 1e6
_PHASES = ("Firmware", "Loader", "Kernel", "InitRD", "Userspace", "Finish")
_MANAGER = ",".join(f"{phase}TimestampMonotonic" for phase in _PHASES)
_UNIT = ("After", "InactiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic")
# Most units are devices that nothing waits for.
_KINDS = ("service", "target", "mount", "automount", "swap", "socket", "slice")
_ASKED = (*_KINDS, "device")
# What others name and is not there has no more to tell. systemd before 246 marks some units with a bullet
# even with --plain. Where the bus does not answer, or no units are listed, systemctl tells the same.
_SCRIPT = rf"""
{ASK_UNITS}
title virtualisation; systemd-detect-virt --container; systemd-detect-virt --vm
title manager; systemctl show --property={_MANAGER}
units=()
while read -r first second third fourth _; do
  [[ $first == *.* ]] || {{ first=$second; second=$third; third=$fourth; }}
  [[ -z $first || "$second $third" == 'not-found inactive' ]] || units+=("$first")
done < <(systemctl list-units --all --type={",".join(_ASKED)} --plain --no-legend --no-pager --full)
title asked; printf '%s\n' "${{units[@]}}"
title answers
((${{#units[@]}})) && pn_ask_units {ask_units(_UNIT)} -- "${{units[@]}}" || {{
  ((${{#units[@]}})) || units=({" ".join(f"'*.{kind}'" for kind in _ASKED)})
  title units; systemctl show --all --no-pager --property=Id,{",".join(_UNIT)} -- "${{units[@]}}"
}}
"""


class UnitTime(msgspec.Struct, frozen=True, kw_only=True):
    """When a unit came up, in seconds since userspace began.

    :param started_s: when its start job began to run.
    :param took_s: until it was active.
    """

    name: str
    started_s: float
    took_s: float


class BootTime(msgspec.Struct, frozen=True, kw_only=True):
    """A finished boot.

    :param phases_s: seconds of firmware, loader, kernel, initrd and userspace, those that there
        were, in order.
    :param slowest: units by the time that they took, slowest first.
    :param critical_chain: units that the default target waited for, last first.
    :param emulated: whether QEMU emulates the processor: its seconds are then not those of real
        hardware.
    """

    phases_s: Mapping[str, float]
    slowest: Sequence[UnitTime]
    critical_chain: Sequence[UnitTime]
    emulated: bool

    @property
    def total_s(self) -> float:
        """Seconds of all phases together."""
        return sum(self.phases_s.values())


def boot_time(
    *, target: str = "default.target", most: int = 20, name: str = "boot-time"
) -> Probe[BootTime | None]:
    """Ask how long the boot took; ``None`` while it goes on, or if systemd does not answer.

    :param target: where the critical chain begins; its name, or the alias ``default.target``.
    :param most: at most so many of the slowest units.
    """
    return Probe(
        name=name,
        script=f"{_SCRIPT}title target; systemctl show --property=Id {target}",
        parse=lambda output: _parse(output, most),
    )


def _parse(output: ProbeOutput, most: int) -> BootTime | None:
    parts = dict(output.records)
    container, machine = [*parts.get("virtualisation", "").split(), "", ""][:2]
    manager, target = (next(iter(parse_show(parts.get(t, ""))), {}) for t in ("manager", "target"))
    units = _units(output, parts)
    if not units or not _time_us(manager, "Finish"):
        return None
    began_us = _time_us(manager, "Userspace")
    times = {
        unit["Id"]: UnitTime(
            name=unit["Id"],
            started_s=(_time_us(unit, "InactiveExit") - began_us) / _US,
            took_s=(_time_us(unit, "ActiveEnter") - _time_us(unit, "InactiveExit")) / _US,
        )
        for unit in units
        if unit.get("Id")
        and began_us <= _time_us(unit, "InactiveExit") <= _time_us(unit, "ActiveEnter")
        # What was started after the boot did not hold it up.
        and _time_us(unit, "InactiveExit") <= _time_us(manager, "Finish")
    }
    after = {unit.get("Id", ""): _linked(unit) for unit in units}
    return BootTime(
        phases_s=_phases(manager, container=container not in ("", "none")),
        slowest=sorted(times.values(), key=lambda unit: -unit.took_s)[:most],
        critical_chain=_chain(target.get("Id", ""), times, after),
        # systemd calls QEMU with KVM "kvm" and QEMU without it "qemu" (src/basic/virt.c).
        emulated=machine == "qemu",
    )


def _units(output: ProbeOutput, parts: Mapping[str, str]) -> Sequence[Mapping[str, str]]:
    """Return all units but those devices that nothing waits for."""
    answers = dict(output.raw_records).get("answers", b"")
    asked = read_units(answers, split_lines(parts.get("asked", "")), _UNIT)
    units = [{"Id": name, **properties} for name, properties in asked.items()]
    units = units or [dict(unit) for unit in parse_show(parts.get("units", ""))]
    kinds = [unit.get("Id", "").rpartition(".")[2] for unit in units]
    lasting = [unit for unit, kind in zip(units, kinds, strict=True) if kind in _KINDS]
    awaited = {name for unit in lasting for name in _linked(unit)}
    devices = [unit for unit, kind in zip(units, kinds, strict=True) if kind == "device"]
    return [*lasting, *(unit for unit in devices if unit["Id"] in awaited)]


def _linked(unit: Mapping[str, str]) -> Sequence[str]:
    """Return what `unit` is ordered after; systemctl puts a name with a backslash in quotes, as a shell's word."""
    return [name.strip('"').replace("\\\\", "\\") for name in unit.get("After", "").split()]


def _phases(manager: Mapping[str, str], *, container: bool) -> Mapping[str, float]:
    """Firmware and loader count backwards from the kernel's start; a container has userspace
    only.
    """
    at = {phase: _time_us(manager, phase) for phase in _PHASES}
    userspace_s = (at["Finish"] - at["Userspace"]) / _US
    if container:
        return {"userspace": userspace_s}
    initrd_us = at["InitRD"] or at["Userspace"]
    spans = {
        "firmware": at["Firmware"] - at["Loader"],
        "loader": at["Loader"],
        "kernel": initrd_us,
        "initrd": at["Userspace"] - initrd_us,
    }
    return {name: us / _US for name, us in spans.items() if us > 0} | {"userspace": userspace_s}


def _chain(
    target: str, times: Mapping[str, UnitTime], after: Mapping[str, Sequence[str]]
) -> Sequence[UnitTime]:
    """Follow from `target` the dependency that became active last before the unit itself could
    start.
    """
    chain: list[UnitTime] = []
    unit = times.get(target)
    while unit is not None and unit not in chain:
        chain.append(unit)
        started_s = unit.started_s
        before = [
            times[name]
            for name in after.get(unit.name, ())
            if name in times and _active_s(times[name]) <= started_s
        ]
        unit = max(before, key=_active_s, default=None)
    return chain


def _active_s(unit: UnitTime) -> float:
    return unit.started_s + unit.took_s


def _time_us(properties: Mapping[str, str], name: str) -> int:
    return whole(properties.get(f"{name}TimestampMonotonic", "")) or 0
