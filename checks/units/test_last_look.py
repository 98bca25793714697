"""The last look: what came up also stays up while it is being judged."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from pytest_nixos import Evidence, HostConfig, Machine, not_applicable, observe

from .history import OF_USER, RECOVERED_S, last_event_s, raced_for_host_keys, recovered, troubles

# A service that dies of what it meets at run time rarely does so in its first seconds.
_WATCHED_S = 40.0


@pytest.mark.nixos_last_look(waits=True)
@pytest.mark.nixos_control("UNIT-010")
def test_nothing_died_since_the_boot(
    nixos_host_config: HostConfig,
    nixos_machine: Machine,
    nixos_internet: observe.NeedsOfMachine,
    nixos_evidence: Evidence,
    nixos_progress: Callable[[str], None],
) -> None:
    last = observe.observe(nixos_machine.run, observe.unit_history())
    assert last.answered, "systemd or its journal does not answer"
    if (left_s := _WATCHED_S - last.up_s) > 0:
        nixos_progress(f"watching its units for {left_s:.0f} s more")
        time.sleep(left_s)
        last = observe.observe(nixos_machine.run, observe.unit_history())
    if (since_s := last_event_s(last)) < RECOVERED_S:
        nixos_progress("watching whether what failed a moment ago stays up")
        time.sleep(RECOVERED_S - since_s)
        last = observe.observe(nixos_machine.run, observe.unit_history())
    assert last.answered, "systemd or its journal no longer answers"
    if last.settled_at_s is None and (waits := nixos_internet.holding_up()):
        nixos_evidence.rest_on("internet", *waits)
        not_applicable(nixos_internet.words(waits))
    failed_now = observe.observe(nixos_machine.run, observe.failed_units()) or ()
    concerned = sorted({e.unit for e in last.after_boot() if e.unit and not e.of_user})
    states = observe.observe(nixos_machine.run, observe.units(concerned))
    over = recovered(last, states)
    nixos_evidence.expect(
        f"no unit fails for good, restarts again and again or is killed in {last.up_s:.0f} s"
    )
    found = dict(troubles(last, over))
    of_users = [unit for unit in found if unit.endswith(OF_USER)]
    needs = nixos_internet.anew(nixos_machine).of([u for u in found if u not in of_users])
    nixos_evidence.rest_on("internet", *needs)
    for unit in needs:
        del found[unit]
    own = [unit for unit in found if unit not in of_users]
    journals = {
        unit: observe.observe(nixos_machine.run, observe.journal(unit)) for unit in own[:10]
    }
    for unit in [unit for unit, said in journals.items() if raced_for_host_keys(unit, said)]:
        del found[unit], journals[unit]
    nixos_evidence.observe(
        {
            "since the boot had ended": found,
            "failed and well again": sorted(over),
            "failed now": list(failed_now),
            "kernel": last.kernel,
        }
    )
    if found.keys() == set(of_users):
        nixos_evidence.rest_on("unit", *of_users)  # a login of theirs may tell more
    nixos_evidence.blame("unit", *(unit for unit in found if unit not in of_users))
    for unit, journal in journals.items():
        nixos_evidence.attach(f"journal of {unit}", "\n".join(journal))
    failures = observe.why_failed(
        journals,
        nixos_host_config,
        lambda: observe.observe(nixos_machine.run, observe.sockets(owners=True)).units_by_port(),
    )
    theirs = [
        f"# {unit}: read why, as that user: journalctl --user -u {unit.removesuffix(OF_USER)}"
        for unit in of_users
    ]
    nixos_evidence.remedy = "\n".join(filter(None, [failures.remedy, *theirs]))
    why = {unit: f" ({f.why})" for unit, f in failures.by_unit.items() if f.why}
    told = [f"{unit}: {', '.join(what)}{why.get(unit, '')}" for unit, what in found.items()]
    assert not found, "; ".join(told)
    assert not last.kernel, f"the kernel tells of a crash: {last.kernel[0]}"
    if needs:
        not_applicable(nixos_internet.words(needs))
