"""Power: a machine goes off, in order or as if its plug were pulled, and comes up again on the same disk."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from pytest_nixos.errors import MachineError, TransportError
from pytest_nixos.local.timing import Deadline, poll

__all__ = ["BootsFrom", "Powered", "ask_to_power_off", "await_end"]

_ORDER_LIMIT_S = 20.0
_INTERVAL_S = 0.05


class BootsFrom(enum.Enum):
    """What decides which generation a machine comes up in."""

    SCRIPT = "its run script"
    PROFILE = "the system profile"
    LOADER = "its boot loader"


@runtime_checkable
class Powered(Protocol):
    """A started machine that can be switched off and on again."""

    @property
    def boots_from(self) -> BootsFrom:
        """What decides which generation comes up: a VM that boots its kernel directly comes back into its script's own."""
        ...

    def power_off(self, *, orderly: bool, deadline: Deadline) -> None:
        """Shut the machine down, or cut its power; what is on its disk stays.

        :raises MachineError: if an orderly shutdown is not over by `deadline`.
        """
        ...

    def power_on(self, *, generation: int | None, deadline: Deadline) -> None:
        """Start the machine again and wait until its boot has settled.

        :param generation: number of the generation to boot, where the backend itself chooses.
        :raises BootError: if it does not come up.
        """
        ...


def ask_to_power_off(run: Callable[[str, Deadline], object], *, deadline: Deadline) -> None:
    """Order a shutdown; the channel may break before it has answered."""
    with contextlib.suppress(TransportError):
        run("systemctl poweroff --no-block", deadline.within(_ORDER_LIMIT_S))


def await_end(name: str, has_ended: Callable[[], bool], *, deadline: Deadline) -> None:
    """Wait for the end of a machine that was told to shut down.

    :raises MachineError: if it still runs at `deadline`.
    """
    if poll(lambda: has_ended() or None, deadline=deadline, interval_s=_INTERVAL_S) is None:
        raise MachineError(
            f"{name}: still runs {deadline.limit_s:g} s after it was told to shut down",
            remedy="read the console for the unit that does not stop; crash() cuts the power",
        )
