"""Ask a guest whose boot failed which units did it; over any transport that still answers."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable
from typing import Protocol

import msgspec

from pytest_nixos.errors import BootError, TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import Transport

__all__ = [
    "AnsweringChannel",
    "FailedUnits",
    "ask_failed_units",
    "with_evidence",
    "with_failed_units",
]

# The instrumentation starts the channel in these modes too.
_ANSWERING = frozenset({"emergency mode", "rescue mode"})

_FAILED = "timeout 10 systemctl list-units --failed --no-legend --plain --no-pager"
_JOURNAL = "timeout 10 journalctl --boot --no-pager --quiet --lines=30 --output=short-monotonic"
# A mount whose device never came has not "failed", it is a dependency that did: errors tell then.
_ERRORS = "timeout 10 journalctl --boot --no-pager --quiet --lines=15 --output=short-monotonic --priority=err"
_MOST_UNITS = 8
_MOST_LINES = 12


class AnsweringChannel(Transport, Protocol):
    """A channel of which one can wait until the guest serves it."""

    def wait_ready(self, deadline: Deadline, alive: Callable[[], None]) -> None:
        """Wait until the guest serves it; `alive` is called meanwhile, and raises if it has ended."""
        ...


class FailedUnits(msgspec.Struct, frozen=True, kw_only=True):
    """Units that failed, and the last lines of their journals."""

    names: tuple[str, ...]
    journal: tuple[str, ...]


def with_evidence(
    error: BootError,
    channel: AnsweringChannel | None,
    *,
    limit_s: float,
    alive: Callable[[], None] = lambda: None,
) -> BootError:
    """Ask a guest in emergency mode which units failed, if it answers soon.

    :param channel: ``None`` where there is none yet.
    :param alive: raises :class:`TransportError` if the guest has ended.
    """
    if error.state not in _ANSWERING or channel is None:
        return error
    deadline = Deadline.after(limit_s)
    with contextlib.suppress(TransportError):
        # Emergency mode may have started its end of the channel anew.
        channel.wait_ready(deadline, alive)
        return with_failed_units(error, ask_failed_units(channel, deadline=deadline))
    return error


def ask_failed_units(transport: Transport, *, deadline: Deadline) -> FailedUnits:
    """Read which units failed and what they said; empty if the guest does not answer in time."""
    with contextlib.suppress(TransportError):
        listed = transport.run(_FAILED, deadline=deadline).stdout_text.splitlines()
        names = tuple(line.split()[0] for line in listed if line.strip())[:_MOST_UNITS]
        chosen = "".join(f" --unit={shlex.quote(name)}" for name in names)
        command = _JOURNAL + chosen if names else _ERRORS
        journal = transport.run(command, deadline=deadline).stdout_text
        return FailedUnits(names=names, journal=tuple(journal.splitlines()))
    return FailedUnits(names=(), journal=())


def with_failed_units(error: BootError, failed: FailedUnits) -> BootError:
    """Add the failed units to a boot error: names to its message, their journal to its evidence."""
    if not failed.journal:
        return error
    named = f"\n  failed units: {', '.join(failed.names)}" if failed.names else ""
    told = BootError(
        f"{error.message}{named}",
        remedy=error.remedy,
        state=error.state,
        console_tail=(*error.console_tail[-_MOST_LINES:], *failed.journal[-_MOST_LINES:]),
    )
    told.detail = "\n".join((*error.console_tail, *failed.journal))
    return told
