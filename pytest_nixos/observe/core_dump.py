"""Core dumps: what becomes of the memory of a process that crashes, core(5), coredump.conf(5)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.text import pairs

__all__ = ["CoreDumps", "core_dumps"]

# The limits of what runs are the kernel's word; a unit's own LimitCORE has become one of them. They
# decide only where the kernel writes files itself.
_READ = r"""
pattern='|'
[ -e /run/systemd/container ] || { title pattern; pattern=$(</proc/sys/kernel/core_pattern); printf '%s\n' "$pattern"; }
title settings; systemd-analyze cat-config systemd/coredump.conf
title limits
if [[ $pattern != '|'* ]]; then
  running=()
  while read -r name _; do [[ $name == *.service ]] && running+=("$name"); done < <(
    systemctl list-units --type=service --state=running --plain --no-legend --no-pager --full)
  id= pid=0
  while IFS= read -r line; do
    case $line in
      Id=*) id=${line#*=};; MainPID=*) pid=${line#*=};;
      '') if [[ $id == *.service && $pid == [1-9]* ]]; then
          mapfile -t limits < /proc/$pid/limits
          for limit in "${limits[@]}"; do
            [[ $limit == 'Max core file size'* ]] && printf '%s %s\n' "$id" "${limit#Max core file size}"
          done
        fi
        id= pid=0;;
    esac
  done < <(((${#running[@]})) && systemctl show --no-pager --property=Id,MainPID -- "${running[@]}"; echo)
fi
title complete
true
"""
_HANDLER = re.compile(r"\|\s*(\S+)")
_NOTHING = re.compile(r"(?:.*/)?(?:false|true)|/dev/null")


class CoreDumps(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of core dumps.

    :param pattern: the kernel's core_pattern; ``None`` in a container, whose kernel is another's.
    :param storage: where systemd-coredump keeps them, by all its files together.
    :param dumping: running services whose limit lets the kernel write a dump; empty where another program
        gets them.
    """

    pattern: str | None
    storage: str
    dumping: tuple[str, ...]

    @property
    def stored(self) -> Sequence[str]:
        """Say where dumps are stored; empty where none is."""
        if self.pattern is None:
            return self._stored_by_systemd
        handler = _HANDLER.match(self.pattern)
        if handler is None:
            if not self.pattern or _NOTHING.fullmatch(self.pattern):
                return []
            return [f"{unit}: dumps to a file named {self.pattern}" for unit in self.dumping]
        if _NOTHING.fullmatch(handler[1]):
            return []
        if handler[1].rpartition("/")[2] != "systemd-coredump":
            return [f"handed to {handler[1]}"]
        return self._stored_by_systemd

    @property
    def _stored_by_systemd(self) -> Sequence[str]:
        return [] if self.storage == "none" else [f"systemd-coredump: Storage is {self.storage}"]


def core_dumps(*, name: str = "core-dumps") -> Probe[CoreDumps | None]:
    """Ask what becomes of core dumps; ``None`` where the answer is cut short."""
    return Probe(name=name, script=_READ, parse=_parse)


def _parse(output: ProbeOutput) -> CoreDumps | None:
    sections = output.sections
    if "complete" not in sections:
        return None
    kept = [
        line for line in sections.get("settings", ()) if not line.lstrip().startswith(("#", ";"))
    ]
    limits = [line.split() for line in sections.get("limits", ())]
    return CoreDumps(
        pattern="\n".join(sections["pattern"]).strip() if "pattern" in sections else None,
        storage=pairs("\n".join(kept)).get("Storage", "") or "external",
        dumping=tuple(words[0] for words in limits if len(words) > 1 and words[1] != "0"),
    )
