"""What a guest is asked before it is saved, and what it is told when it wakes up as a clone."""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from pytest_nixos.errors import MachineError, TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.boot.settle import parse_properties
from pytest_nixos.machine.command import Transport
from pytest_nixos.machine.snapshot.record import GuestAtRest

__all__ = [
    "at_rest_text",
    "look_at_guest",
    "make_store_writable",
    "parse_timers",
    "wake_guest",
    "waking_command",
]

_FAILED = "systemctl list-units --state=failed --plain --no-legend --no-pager"
_FAILED_COUNT = "systemctl show --property=NFailedUnits"
# systemd makes a link here before it starts a process of a unit, and removes it when the unit becomes inactive or
# failed (unit_prepare_exec and unit_notify of its core/unit.c, 239 to 261): while the time of this directory is that of
# the mark, no unit with processes of its own was started, has ended or has failed.
_UNITS = "/run/systemd/units"
_MARK = "/run/pytest-nixos/units-at-rest"
_MARK_UNITS = f"rm -f {_MARK}; touch --reference={_UNITS} {_MARK}"
_AT_REST = "at-rest"
# Whoever the new time has woken has done what it does when nobody but this shell wants a processor: the number before
# the slash counts those who do. Nobody writes to the pipe of `idle`, so to read it is to sleep.
_LOOK_AT_REST = """
looks=0 quiet=0
[[ ! -e {mark} ]] || until ((quiet == 2 || looks++ == 20)); do
  read -r -t 0.01 -u "$idle" _
  read -r _ _ _ wanting _ <{load}
  [[ $wanting == 1/* ]] && ((++quiet)) || quiet=0
done
if ((quiet == 2)) && [[ ! {units} -nt {mark} && ! {units} -ot {mark} ]]; then echo {word}; else {count}; fi"""
_TIMERS = (
    "systemctl show --timestamp=utc --property=Id --property=ActiveState "
    "--property=NextElapseUSecRealtime '*.timer'"
)
# The image of the store is read-only; a VM that mounts the host machine's store has this same
# overlay over it.
_OVERLAY = """set -e
[ "$(stat --file-system --format=%T /nix/store)" = erofs ] || exit 0
options=$(findmnt --noheadings --first-only --output VFS-OPTIONS --mountpoint /nix/store --direction backward)
mkdir -p /nix/.rw-store
mount -t tmpfs -o mode=0755 tmpfs /nix/.rw-store
mkdir /nix/.rw-store/store /nix/.rw-store/work
mount -t overlay -o lowerdir=/nix/store,upperdir=/nix/.rw-store/store,workdir=/nix/.rw-store/work overlay /nix/store
mount -o "remount,bind,$options" /nix/store
type -P nix-store >/dev/null || exit 0
for option in $(</proc/cmdline); do
  case $option in
    # Nix registers what it has at boot, and cannot on a store that it cannot write to.
    regInfo=*) NIX_REMOTE=local nix-store --load-db <"${option#regInfo=}" ;;
  esac
done
"""
_LIMIT_S = 60.0
# A timer that is due within this time may run while the clock is being set.
_MARGIN_S = 2.0
_ENTROPY_BYTES = 64


def look_at_guest(transport: Transport, *, deadline: Deadline) -> GuestAtRest:
    """Read what must be the same after the restore, and mark how the units stand."""
    # Sooner than the look, so that what fails in between is asked for.
    transport.run(_MARK_UNITS, deadline=deadline.within(_LIMIT_S))
    failed = transport.run(_FAILED, deadline=deadline.within(_LIMIT_S)).stdout_text
    timers = transport.run(_TIMERS, deadline=deadline.within(_LIMIT_S)).stdout_text
    return GuestAtRest(failed_units=_names(failed), timers=parse_timers(timers))


def make_store_writable(transport: Transport, *, deadline: Deadline) -> str:
    """Put an overlay over a store that is an image; return why it cannot be done, ``""`` if it
    was.
    """
    result = transport.run(_OVERLAY, deadline=deadline.within(_LIMIT_S))
    return "" if result.succeeded else result.stderr_text.strip()


def wake_guest(
    transport: Transport, guest: GuestAtRest, *, saved_at_s: float, deadline: Deadline
) -> None:
    """Set the clock, stir the random pool, and look that no unit failed of the jump, once the guest
    has come to rest.

    :raises MachineError: naming the units that failed.
    :raises TransportError: if the guest does not answer.
    """
    limit = deadline.within(_LIMIT_S)
    entropy = secrets.token_hex(_ENTROPY_BYTES)
    command = waking_command(guest, saved_at_s=saved_at_s, now_s=time.time(), entropy=entropy)
    result = transport.run(command, deadline=limit)
    if not result.succeeded:
        raise TransportError(
            f"the guest could not be woken: {result.stderr_text.strip()[:300]}",
            remedy="nothing: the machine is booted instead",
        )
    if result.stdout_text.strip() == _AT_REST:
        return
    if parse_properties(result.stdout_text).get("NFailedUnits") == str(len(guest.failed_units)):
        return
    failed = _names(transport.run(_FAILED, deadline=limit).stdout_text)
    new = set(failed) - set(guest.failed_units)
    if new:
        raise MachineError(
            f"units failed when the guest woke up: {', '.join(sorted(new))}",
            remedy="nothing: the machine is booted instead",
        )


def waking_command(guest: GuestAtRest, *, saved_at_s: float, now_s: float, entropy: str) -> str:
    """Build what a clone runs first; it starts as few programs as can be, each costs tens of
    milliseconds.

    A calendar timer whose time lies between then and now would run at once, as after a machine was
    off for that long; a machine that has just booted has no such past, so such timers are
    restarted.
    """
    restarted = _overdue(guest.timers, saved_at_s=saved_at_s, now_s=now_s)
    stir = f"printf %s {shlex.quote(entropy)} >/dev/urandom"
    clock = f"date --utc --set=@{now_s:.3f} >/dev/null"
    if not restarted:
        return "\n".join(
            (stir, f"exec {{idle}}<> <(exec {clock}); wait $! || exit", at_rest_text())
        )
    names = " ".join(shlex.quote(name) for name in restarted)
    stamps = " ".join(shlex.quote(f"/var/lib/systemd/timers/stamp-{n}") for n in restarted)
    lines = [
        stir,
        f"systemctl stop {names}",
        f"{clock} || exit",
        f"touch --no-create {stamps}",
        f"systemctl start {names}",
        _FAILED_COUNT,
    ]
    return "\n".join(lines)


def at_rest_text(*, units: str = _UNITS, mark: str = _MARK, load: str = "/proc/loadavg") -> str:
    """Build the bash text that says whether the units are as they were when they were marked, and the
    guest has come to rest; else it asks systemd how many have failed.

    :param units: systemd's directory of links for units with processes.
    :param mark: file with that directory's time.
    :param load: as ``/proc/loadavg`` of proc(5).
    """
    return _LOOK_AT_REST.format(
        units=units, mark=mark, load=load, word=_AT_REST, count=_FAILED_COUNT
    )


def parse_timers(text: str) -> Mapping[str, float]:
    """Read blocks of ``systemctl show`` for timers: name to the next calendar time, in seconds
    since 1970.
    """
    found = {}
    for block in text.split("\n\n"):
        facts = parse_properties(block)
        at_s = _epoch(facts.get("NextElapseUSecRealtime", ""))
        if at_s is not None and facts.get("ActiveState") == "active":
            found[facts["Id"]] = at_s
    return found


def _overdue(timers: Mapping[str, float], *, saved_at_s: float, now_s: float) -> list[str]:
    if now_s < saved_at_s - _MARGIN_S:
        return sorted(timers)  # set back, they would all run late
    return sorted(name for name, at_s in timers.items() if at_s <= now_s + _MARGIN_S)


def _epoch(text: str) -> float | None:
    """Read ``Sat 2026-11-21 06:00:00 UTC``, as systemd.time(7) formats it with
    ``--timestamp=utc``.
    """
    words = text.split()
    if len(words) != 4 or words[3] != "UTC":
        return None
    try:
        moment = datetime.fromisoformat(f"{words[1]}T{words[2]}")
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC).timestamp()


def _names(listing: str) -> tuple[str, ...]:
    return tuple(line.split()[0] for line in listing.splitlines() if line.strip())
