"""The guest's journal, held while a stranger knocks at every port.

A NixOS firewall logs what it refuses (``networking.firewall.logRefusedConnections``, on by default): 131,000
lines for a look at all ports by both families. journald keeps some of them, for which it takes a processor
of the guest, and lets the boot's own lines go where its room ends; who reads the journal afterwards reads
them all. A journald that is held finds what the kernel's own buffer still has, and says how many it missed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import Transport

__all__ = ["held_journal"]

_TRIP_S = 20.0
# systemd ends a journald that was silent for three minutes (WatchdogSec of systemd-journald.service), and it
# speaks every minute and a half.
_LONGEST_S = 60
# Whoever holds it may end without a word: then it goes on by itself. To read a pipe that nobody writes to is
# to sleep without starting a program.
_HOLD = f"""
read -r journald </sys/fs/cgroup/system.slice/systemd-journald.service/cgroup.procs || exit
(exec 3<> <(:); read -r -t {_LONGEST_S} -u 3; kill -CONT "$journald") </dev/null >/dev/null 2>&1 &
kill -STOP "$journald" && printf '%s %s' "$journald" "$!"
"""


@contextlib.contextmanager
def held_journal(transport: Transport, *, deadline: Deadline) -> Iterator[None]:
    """Hold journald inside this context, for a minute at most; where the guest has none, nothing is held.

    :raises TransportError: if the guest does not answer.
    """
    held = transport.run(_HOLD, deadline=deadline.within(_TRIP_S)).stdout_text.split()
    try:
        yield
    finally:
        if held:
            journald, timer = held
            with contextlib.suppress(TransportError):  # the timer does it
                go_on = f"kill -CONT {journald}; kill {timer}"
                transport.run(go_on, deadline=Deadline.after(_TRIP_S))
