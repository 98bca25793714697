"""The last look: what came up also stays up while it is being judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import pytest

from pytest_nixos import Evidence, Machine, Observations, observe

# A service that dies of what it meets at run time rarely does so in its first seconds.
_WATCHED_S = 40.0
_FATAL = (
    observe.UnitEventKind.FAILED,
    observe.UnitEventKind.OUT_OF_MEMORY,
    observe.UnitEventKind.CRASHED,
)


@pytest.mark.nixos_last_look
@pytest.mark.nixos_control("UNIT-010")
def test_nothing_died_since_the_boot(
    nixos_machine: Machine,
    nixos_observations: Observations,
    nixos_evidence: Evidence,
    nixos_progress: Callable[[str], None],
) -> None:
    first = nixos_observations.of(observe.unit_history())
    assert first.answered, "systemd or its journal does not answer"
    if (left_s := _WATCHED_S - first.up_s) > 0:
        nixos_progress(f"watching its units for {left_s:.0f} s more")
        time.sleep(left_s)
    last = observe.observe(nixos_machine.run, observe.unit_history(look=2))
    assert last.answered, "systemd or its journal no longer answers"
    failed_now = observe.observe(nixos_machine.run, observe.failed_units()) or ()
    nixos_evidence.expect(f"no unit fails, restarts or is killed in {last.up_s:.0f} s")
    troubles = _troubles(last)
    states = observe.observe(nixos_machine.run, observe.units(list(troubles)))
    finished = observe.finished_jobs(last.after_boot(), states)
    troubles = {unit: what for unit, what in troubles.items() if unit not in finished}
    nixos_evidence.observe(
        {
            "since the boot had ended": troubles,
            "failed now": list(failed_now),
            "kernel": last.kernel,
            "jobs that tried again and succeeded": sorted(finished),
        }
    )
    nixos_evidence.blame("unit", *troubles)
    for unit in list(troubles)[:10]:
        journal = observe.observe(nixos_machine.run, observe.journal(unit))
        nixos_evidence.attach(f"journal of {unit}", "\n".join(journal))
    assert not troubles, "; ".join(f"{unit}: {', '.join(what)}" for unit, what in troubles.items())
    assert not last.kernel, f"the kernel tells of a crash: {last.kernel[0]}"


def _troubles(history: observe.UnitHistory) -> Mapping[str, list[str]]:
    """Return unit to what befell it once the boot had ended: kind and how often."""
    counted: dict[str, dict[str, int]] = {}
    for event in history.after_boot():
        if event.kind in _FATAL or event.kind in (
            observe.UnitEventKind.RESTARTED,
            observe.UnitEventKind.MESSAGES_DROPPED,
        ):
            kinds = counted.setdefault(event.unit or "a unit", {})
            kinds[event.kind.value] = kinds.get(event.kind.value, 0) + 1
    return {
        unit: [kind if n == 1 else f"{kind} {n} times" for kind, n in kinds.items()]
        for unit, kinds in sorted(counted.items())
    }
