"""What befell units once the boot had ended, and which of them have got over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_nixos import observe

__all__ = [
    "OF_USER",
    "RECOVERED_S",
    "last_event_s",
    "of_user",
    "raced_for_host_keys",
    "recovered",
    "troubles",
]

#: What stands behind the name of a unit of a user's manager.
OF_USER = " of a user"
#: A unit that has been well for so long after its last failure only waited for another one.
RECOVERED_S = 15.0
_TRANSIENT = frozenset({observe.UnitEventKind.FAILED, observe.UnitEventKind.RESTARTED})


def recovered(
    history: observe.UnitHistory, states: Mapping[str, observe.UnitState]
) -> frozenset[str]:
    """Return the units that failed after the boot and are well again, for good as far as was seen.

    A service that is started before what it needs fails, is started again and then runs or ends
    with success: systemd's restart is how it waits. What was killed for want of memory, dumped
    core or failed again and again has not recovered, however it is now.

    :param states: the units' states at the time of the look.
    """
    events: dict[str, list[observe.UnitEvent]] = {}
    for event in history.after_boot():
        if not event.of_user:
            events.setdefault(event.unit, []).append(event)
    return frozenset(
        unit
        for unit, found in events.items()
        if unit in states
        and _is_well(states[unit])
        and len(found) <= observe.MANY_RESTARTS
        and {event.kind for event in found} <= _TRANSIENT
        and history.now_s - max(event.at_s for event in found) >= RECOVERED_S
    )


def last_event_s(history: observe.UnitHistory) -> float:
    """Return the seconds since the last failure or restart, infinite without one."""
    times = [event.at_s for event in history.after_boot() if event.kind in _TRANSIENT]
    return history.now_s - max(times) if times else float("inf")


def troubles(history: observe.UnitHistory, over: frozenset[str]) -> Mapping[str, list[str]]:
    """Return unit to what befell it once the boot had ended: kind and how often; that of a user's
    manager by :func:`of_user`.

    :param over: units that have got over it.
    """
    counted: dict[str, dict[str, int]] = {}
    for event in history.after_boot():
        if event.of_user or event.unit not in over:
            name = of_user(event.unit) if event.of_user else event.unit
            kinds = counted.setdefault(name or "a unit", {})
            kinds[event.kind.value] = kinds.get(event.kind.value, 0) + 1
    return {
        unit: [kind if n == 1 else f"{kind} {n} times" for kind, n in kinds.items()]
        for unit, kinds in sorted(counted.items())
    }


def raced_for_host_keys(unit: str, said: Sequence[str]) -> bool:
    """Whether the sshd of one connection only failed since that of another one was making the host keys.

    Before its first connection a socket-activated sshd has none, and each connection that finds none makes
    them (nixos/modules/services/networking/ssh/sshd.nix): ``ssh-keygen`` asks whether to write over those that
    have come meanwhile. The run itself connects from several sides.

    :param said: lines of its journal.
    """
    asked = any("Overwrite (y/n)?" in line for line in said)
    return unit.startswith("sshd@") and asked and not any(": fatal: " in line for line in said)


def of_user(unit: str) -> str:
    """Return what a unit of a user's manager is called beside those of the system."""
    return f"{unit}{OF_USER}"


def _is_well(state: observe.UnitState) -> bool:
    """Whether a unit runs, or has ended with success; one that systemd does not know is neither."""
    ended_well = state.get("ActiveState") == "inactive" and state.get("Result") == "success"
    return state.exists and (state.is_running or ended_well)
