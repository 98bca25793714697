"""Arrays of mdraid have all their members."""

from __future__ import annotations

import pytest

from pytest_nixos import Evidence, Machine, not_applicable

# The kernel's own word, Documentation/admin-guide/md.rst; levels without redundancy have no "degraded".
_READ = r"""
for array in /sys/block/md*/md; do
  [ -e "$array/array_state" ] || continue
  name=${array%/md}
  degraded=0 action=idle
  [ ! -e "$array/degraded" ] || read -r degraded <"$array/degraded"
  [ ! -e "$array/sync_action" ] || read -r action <"$array/sync_action"
  read -r level <"$array/level"; read -r disks <"$array/raid_disks"; read -r state <"$array/array_state"
  printf '%s\t%s\t%s\t%s\t%s\t%s\n' "${name##*/}" "$level" "$disks" "$degraded" "$action" "$state"
done
"""
_GONE = frozenset({"inactive", "clear", "suspended", "broken"})


@pytest.mark.nixos_control("FS-024")
def test_every_array_is_whole(nixos_machine: Machine, nixos_evidence: Evidence) -> None:
    lines = nixos_machine.run(_READ).stdout_text.splitlines()
    arrays = [words for line in lines if len(words := line.split("\t")) == 6]
    if not arrays:
        not_applicable("the machine has no array of mdraid")
    told = {name: _told(*words) for name, *words in arrays}
    nixos_evidence.expect(dict.fromkeys(told, "whole"))
    nixos_evidence.observe({name: said or "whole" for name, said in told.items()})
    wrong = [f"{name} {said}" for name, said in told.items() if said]
    assert not wrong, "; ".join(wrong)


def _told(level: str, disks: str, degraded: str, action: str, state: str) -> str:
    """Return what is wrong with an array, ``""`` for nothing."""
    if state in _GONE:
        return f"({level}) is {state}"
    if degraded == "0":
        return ""
    rebuilt = ", and is being rebuilt" if action == "recover" else ""
    return f"({level}) lacks {degraded} of {disks} members{rebuilt}"
