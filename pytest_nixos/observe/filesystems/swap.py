"""Swap areas, zram devices and memory."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.fact import Fact
from pytest_nixos.observe.text import lines, unescape_octal, whole

__all__ = ["SWAP_FACTS", "SwapArea", "SwapState", "ZramDevice", "swap"]

_READ = r"""
title swaps; printf '%s\n' "$(</proc/swaps)"
title meminfo; printf '%s\n' "$(</proc/meminfo)"
for device in /sys/block/zram*; do
  [ -e "$device/disksize" ] || continue
  title zram "${device##*/}"
  for key in disksize comp_algorithm mem_limit mm_stat max_comp_streams backing_dev; do
    [ -r "$device/$key" ] && printf '%s %s\n' $key "$(<"$device/$key")"
  done
done
true
"""

_PLAIN = r"""
[ -r /proc/swaps ] || exit 0
exec </proc/swaps
read -r
while read -r device type _; do
  case $device in /dev/zram*) continue;; esac
  if [ "$type" = file ]; then device=$(df --output=source "$device" | tail -n 1); fi
  if ! lsblk --noheadings --inverse --output TYPE "$device" | grep -q crypt; then printf '%s\n' "$device"; fi
done"""

_CHOSEN = re.compile(r"\[([^\]]+)\]")


class SwapArea(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``/proc/swaps``.

    :param kind: ``partition`` or ``file``.
    :param priority: higher is used first; negative where the kernel chose it.
    """

    path: str
    kind: str
    size_bytes: int
    used_bytes: int
    priority: int

    @property
    def is_zram(self) -> bool:
        """Whether it lies on a zram device."""
        return self.path.startswith("/dev/zram")


class ZramDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One zram device.

    :param name: ``zram0``.
    :param disk_size_bytes: what it holds uncompressed; 0 if it was never set up.
    :param algorithm: the algorithm in use, ``""`` if the kernel does not say.
    :param memory_limit_bytes: limit on the memory that it takes, ``None`` if there is none.
    :param memory_used_bytes: memory that it takes now, ``None`` if unknown.
    """

    name: str
    disk_size_bytes: int
    algorithm: str
    memory_limit_bytes: int | None
    memory_used_bytes: int | None
    backing_device: str


class SwapState(msgspec.Struct, frozen=True, kw_only=True):
    """Memory and swap of the guest.

    :param memory_bytes: ``MemTotal``: what zram-generator calls ``ram``.
    :param meminfo: every line of ``/proc/meminfo`` in bytes (counts stay counts).
    """

    areas: tuple[SwapArea, ...]
    zram: tuple[ZramDevice, ...]
    memory_bytes: int
    meminfo: Mapping[str, int]

    def area_of(self, device: str) -> SwapArea | None:
        """Return the swap area on ``/dev/<device>``, if it is in use."""
        return next((a for a in self.areas if a.path == f"/dev/{device}"), None)


def swap(*, name: str = "swap") -> Probe[SwapState]:
    """Ask for swap areas, zram devices and memory."""
    return Probe(name=name, script=_READ, parse=_parse)


def _parse(output: ProbeOutput) -> SwapState:
    sections = output.sections
    meminfo = _meminfo("\n".join(sections.get("meminfo", ())))
    areas = (_parse_area(line) for line in sections.get("swaps", ())[1:])
    return SwapState(
        areas=tuple(area for area in areas if area is not None),
        zram=tuple(
            _parse_zram(name.removeprefix("zram "), values)
            for name, values in sections.items()
            if name.startswith("zram ")
        ),
        memory_bytes=meminfo.get("MemTotal", 0),
        meminfo=meminfo,
    )


def _parse_area(line: str) -> SwapArea | None:
    # Filename  Type  Size  Used  Priority, in KiB; blanks in names are octal escapes.
    fields = line.split()
    if len(fields) < 5:
        return None
    try:
        size, used, priority = (int(f) for f in fields[-3:])
    except ValueError:
        return None
    return SwapArea(
        path=unescape_octal(fields[0]),
        kind=fields[1],
        size_bytes=size * 1024,
        used_bytes=used * 1024,
        priority=priority,
    )


def _parse_zram(name: str, lines: Sequence[str]) -> ZramDevice:
    values = {key: value for key, _, value in (line.partition(" ") for line in lines)}
    # orig_data_size compr_data_size mem_used_total mem_limit mem_used_max ...
    stat = values.get("mm_stat", "").split()
    algorithm = values.get("comp_algorithm", "")
    chosen = _CHOSEN.search(algorithm)
    limit = _number(stat[3]) if len(stat) > 3 else None
    return ZramDevice(
        name=name,
        disk_size_bytes=_number(values.get("disksize", "")) or 0,
        algorithm=chosen[1] if chosen else algorithm.strip(),
        memory_limit_bytes=limit or None,
        memory_used_bytes=_number(stat[2]) if len(stat) > 2 else None,
        backing_device=values.get("backing_dev", "").strip().removeprefix("none"),
    )


def _meminfo(text: str) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for line in text.split("\n"):
        key, _, rest = line.partition(":")
        number, *unit = rest.split() or ["x"]
        if (amount := whole(number)) is not None:
            found[key] = amount * (1024 if unit == ["kB"] else 1)
    return found


def _number(text: str) -> int | None:
    return whole(text.strip())


SWAP_FACTS: Mapping[str, Fact] = {
    "plain-swap": Fact(
        script=_PLAIN,
        parse=lines,
        needs=("lsblk", "df"),
        about="swap on a disk that is not encrypted",
    ),
}
