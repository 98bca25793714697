"""Waiting for what a service gives, and no longer than the service can still give it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.observe.base import RunCommand, observe
from pytest_nixos.observe.systemd.unit import UnitState, units

__all__ = ["hopeless", "is_hopeless", "poll_service"]

T = TypeVar("T")

_REFUSED = frozenset({"not-found", "bad-setting", "error", "masked"})
# systemd's own default gives up after five starts within ten seconds (systemd.unit(5),
# StartLimitBurst=).
_MANY_RESTARTS = 3


def poll_service(
    run: RunCommand,
    unit: str,
    probe: Callable[[], T | None],
    *,
    deadline: Deadline,
    interval_s: float = 1.0,
) -> T | None:
    """Call `probe` until it returns something other than ``None``, the deadline expires, or
    `unit` is hopeless.

    The probe always runs at least once. The unit is asked only after a probe that gave nothing.

    :param run: runs a command in the guest, for example :meth:`pytest_nixos.Machine.run`.
    :param unit: the service that has to answer.
    :param interval_s: seconds between two calls.
    :return: the first value, or ``None``.
    """
    ended = False

    def look() -> T | bool | None:
        nonlocal ended
        value = probe()
        if value is None and is_hopeless(run, unit):
            ended = True
            return True
        return value

    value = poll(look, deadline=deadline, interval_s=interval_s)
    return None if ended else value  # type: ignore[return-value]  # True only where it has ended


def is_hopeless(run: RunCommand, unit: str) -> bool:
    """Whether waiting for a unit makes no sense any more; the guest is asked each time."""
    return hopeless(observe(run, units([unit])).get(unit))


def hopeless(state: UnitState | None) -> bool:
    """Whether waiting for a unit makes no sense: it has failed, cannot be started, or keeps
    dying.
    """
    if state is None:
        return False
    if state.is_failed or state.get("LoadState") in _REFUSED:
        return True
    restarts = state.get("NRestarts")
    dying = state.get("SubState").startswith("auto-restart")
    return dying and restarts.isdigit() and int(restarts) >= _MANY_RESTARTS
