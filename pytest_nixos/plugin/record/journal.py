"""The journal of the time that one item took: structured, bounded, read only where a control was
found violated.
"""

from __future__ import annotations

import time

import pytest

from pytest_nixos.errors import TransportError
from pytest_nixos.machine.base import Machine, State
from pytest_nixos.observe.base import observe
from pytest_nixos.observe.systemd.journal import JournalEntry, recent_journal
from pytest_nixos.standards.control.model import Control

__all__ = ["journal_of_span", "machine_of", "span_begins"]

_BEGAN: pytest.StashKey[float] = pytest.StashKey()
_READ_LIMIT_S = 60.0
# The journal's own delay, and the guest's clock in whole seconds.
_SLACK_S = 2.0


def span_begins(item: pytest.Item) -> None:
    """Note when the item's setup began."""
    item.stash[_BEGAN] = time.monotonic()


def journal_of_span(item: pytest.Item, control: Control) -> tuple[JournalEntry, ...]:
    """Read what the item's machine logged since its setup; nothing if it does not answer.

    A data control only looks at what was observed before: nothing happens in its time.
    """
    machine = machine_of(item)
    began_s = item.stash.get(_BEGAN, None)
    if machine is None or began_s is None or control.is_data:
        return ()
    probe = recent_journal(time.monotonic() - began_s + _SLACK_S)
    try:
        return tuple(
            observe(lambda script: machine.run(script, timeout_s=_READ_LIMIT_S), probe),
        )
    except TransportError:
        return ()


def machine_of(item: pytest.Item) -> Machine | None:
    """Return the item's machine, its own before one that it shares."""
    arguments = getattr(item, "funcargs", {})
    machines = {name: value for name, value in arguments.items() if isinstance(value, Machine)}
    shared = machines.pop("nixos_machine", None)
    candidates = [*machines.values(), *([shared] if shared is not None else [])]
    return next((machine for machine in candidates if machine.state is State.RUNNING), None)
