"""What services are told to reach on their own machine is there."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest

from pytest_nixos import Evidence, HostConfig, Machine, Observations, Unit, not_applicable, observe

from .admitted import LOOK, Refusal, asked, read_refusals
from .admitted import remedy_of as admitting
from .sought import (
    Sought,
    is_answered,
    listens_later,
    nearest_port,
    remedy_of,
    runs_containers,
    sought_by,
    who_names,
)

# How long a service that runs may take to listen once the boot has settled.
_LISTENING_S = 10.0
_LOOK_S = 2.0


@pytest.mark.nixos_control("NET-021")
def test_what_services_are_told_to_reach_listens(
    nixos_machine: Machine,
    nixos_host_config: HostConfig,
    nixos_observations: Observations,
    nixos_internet: observe.NeedsOfMachine,
    nixos_evidence: Evidence,
) -> None:
    services = observe.declared_units(nixos_host_config, ".service")
    files = _files_of(nixos_host_config, services)
    sought = _sought(services, files)
    nixos_evidence.expect(sorted({one.address for one in sought}))
    states = nixos_observations.of(observe.declared_states(nixos_host_config))
    idle = {name for name, state in states.items() if not state.is_running}
    later = {name for name in idle & set(services) if listens_later(services[name], states[name])}
    unanswered, sockets = _after_a_while(nixos_machine, sought)
    clients = {a: {s.unit for s in sought if s.address == a} for a in {s.address for s in sought}}
    named = {one: who_names(one, services, files, clients[one.address]) for one in unanswered}
    unknown = [
        one for one, who in named.items() if later & set(who) or _passed_on(who, services, idle)
    ]
    named = {one: who for one, who in named.items() if one not in unknown}
    down = sorted({name for who in named.values() for name in who if name in idle})
    needs = nixos_internet.of(down)
    nixos_evidence.rest_on("internet", *needs)
    nixos_evidence.rest_on("unit", *(name for name in down if name not in needs))
    missing = [one for one, who in named.items() if not set(who) & set(needs)]
    found = [one for one in sought if one not in unanswered]
    closed = _refused(nixos_machine, found, states)
    nixos_evidence.observe([f"{one.unit}: {one.address}" for one in (*missing, *closed)])
    answered = {one.port for one in sought} - {one.port for one in unanswered}
    owners = sockets.units_by_port()
    meant = {one: nearest_port(one, owners, answered) for one in missing}
    waited = {one: [name for name in named[one] if name in idle] for one in missing}
    remedies = [remedy_of(one, meant[one], waited[one]) for one in missing]
    for one, refusal in closed.items():
        servers = {n: services[n] for n in who_names(one, services, files, clients[one.address])}
        remedies.append(admitting(refusal, services[one.unit], servers))
    nixos_evidence.remedy = "\n".join(dict.fromkeys(remedies))
    told = [_told(one, meant[one], owners, waited[one]) for one in missing]
    told += [
        f"{one.unit} is told to reach {one.path} ({one.where}), {refusal.told()}"
        for one, refusal in closed.items()
    ]
    assert not told, "; ".join(told)
    if needs:
        not_applicable(nixos_internet.words(needs))
    if unknown:
        what = ", ".join(f"{one.address} ({one.unit})" for one in unknown)
        not_applicable(f"unknown: who listens there is a container or started later: {what}")


def _files_of(
    host: HostConfig, services: Mapping[str, Unit]
) -> Mapping[str, Sequence[observe.ReadFile]]:
    toplevel = Path(host.toplevel)
    if not toplevel.exists():
        not_applicable("unknown: this machine does not have the files that the services read")
    return {name: tuple(observe.read_files(unit, toplevel)) for name, unit in services.items()}


def _sought(
    services: Mapping[str, Unit], files: Mapping[str, Sequence[observe.ReadFile]]
) -> Sequence[Sought]:
    found = sorted({one for name, unit in services.items() for one in sought_by(unit, files[name])})
    if not found:
        not_applicable("no service is told to reach another one of its machine")
    return found


def _after_a_while(
    machine: Machine, sought: Sequence[Sought]
) -> tuple[Sequence[Sought], observe.Sockets]:
    """Return what is still not listened on when services have had their time, and the sockets, with
    their owners if something is missing.
    """
    deadline = machine.deadline(_LISTENING_S)
    while True:
        late = deadline.expired
        probe = observe.sockets(owners=late, name="sought")
        sockets = observe.observe(machine.run, probe)
        missing = [one for one in sought if not is_answered(one, sockets)]
        if not missing or late:
            return missing, sockets
        time.sleep(_LOOK_S)


def _refused(
    machine: Machine, found: Sequence[Sought], states: Mapping[str, observe.UnitState]
) -> Mapping[Sought, Refusal]:
    """Return the Unix sockets that listen, and that the main process of who seeks them may not write."""
    running = [one for one in found if one.path and one.unit in states]
    pids = {one: states[one.unit].get("MainPID") for one in running}
    wanted = {(pid, one.path): one for one, pid in pids.items() if pid not in ("", "0")}
    if not wanted:
        return {}
    # A program may still open a socket that it has just made.
    for wait_s in (0.0, _LOOK_S):
        time.sleep(wait_s)
        done = machine.run(LOOK, stdin=asked(wanted))
        assert done.exit_status == 0, f"the guest did not try the sockets: {done.stderr_text}"
        refusals = {wanted[r.pid, r.path]: r for r in read_refusals(done.stdout)}
        if not refusals:
            break
    return refusals


def _passed_on(who: Sequence[str], services: Mapping[str, Unit], idle: Collection[str]) -> bool:
    """Whether a port may be passed on to a container that runs, without a listener of its own."""
    return any(name not in idle and runs_containers(services[name]) for name in who)


def _told(
    sought: Sought, meant: int, owners: Mapping[int, Sequence[str]], idle: Sequence[str]
) -> str:
    told = f"nothing listens on {sought.address}, which {sought.unit} is told to reach ({sought.where})"
    if idle:
        return f"{told}: {', '.join(idle)} does not run"
    if meant:
        return f"{told}; on {meant} listens {', '.join(owners[meant]) or 'a program'}"
    return told
