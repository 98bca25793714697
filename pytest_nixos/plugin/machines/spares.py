"""Machines that are made ready when a run ends, for the run after it (``--nixos-spare``, and always
in a watched session).
"""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_nixos.local.text import printable
from pytest_nixos.plugin.machines.kept import refusal
from pytest_nixos.plugin.settings.declared_options import Keep, SnapshotUse
from pytest_nixos.plugin.settings.options import Settings

if TYPE_CHECKING:
    from pytest_nixos.machine.base import Machine
    from pytest_nixos.machine.keeper.order import SpareOrder

__all__ = ["SPARES", "Spares"]


class Spares:
    """Orders the spares of a run when that has ended.

    :param limit_s: seconds that they wait.
    :param owner: process with which they end, ``None`` for none.
    """

    def __init__(self, *, limit_s: float, owner: int | None) -> None:
        self._limit_s = limit_s
        self._owner = owner
        self._orders: dict[str, SpareOrder] = {}
        self._interrupted = False

    @classmethod
    def prepare(cls, config: pytest.Config, settings: Settings, *, owner: int | None) -> None:
        """See to the spares of a run that is to leave some.

        :param owner: process of the watched session that it is a run of.
        """
        by_hand = config.getoption("nixos_spare") is not None
        may = (
            (settings.spare_s or owner)
            and settings.snapshot is not SnapshotUse.OFF
            and settings.keep is Keep.NEVER
            # Who writes it there asks for it.
            and (by_hand or not refusal(os.environ))
        )
        if not may:
            return
        spares = cls(limit_s=math.inf if owner else settings.spare_s, owner=owner)
        config.stash[SPARES] = spares
        config.pluginmanager.register(spares, "nixos-spares")
        config.add_cleanup(spares.start)

    def note(self, machine: Machine, host: str) -> None:
        """Have one machine like this that is about to end.

        :param host: names its host among all of this user.
        """
        from pytest_nixos.machine.keeper.order import SpareOrder

        order = SpareOrder.of(machine, host=host, limit_s=self._limit_s, owner=self._owner)
        if order is not None:
            self._orders[host] = order

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int | pytest.ExitCode) -> None:
        """See whether the run came to its end."""
        self._interrupted = exitstatus == pytest.ExitCode.INTERRUPTED

    def start(self) -> None:
        """Start what makes them; whoever ended the run wants nothing more."""
        if self._interrupted:
            return
        from pytest_nixos.machine.keeper.order import start_keeper

        for host, order in self._orders.items():
            try:
                start_keeper(order)
            except OSError as err:
                _say(f"{host}: no spare: {err}")
                continue
            if self._owner is None:
                _say(
                    f"{host}: a spare for the next run, for {self._limit_s / 60:g} min"
                    " (pytest-nixos machines)"
                )


SPARES = pytest.StashKey[Spares]()


def _say(text: str) -> None:
    sys.stdout.write(f"nixos: {printable(text)}\n")
