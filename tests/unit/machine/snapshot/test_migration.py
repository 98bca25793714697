"""What QEMU is told when it loads a guest's state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.qemu.qmp import QmpMonitor
from pytest_nixos.machine.snapshot.migration import load_state


class Monitor:
    """A monitor that notes what it is told.

    :param states: of the migration, one a question.
    """

    def __init__(self, *states: str) -> None:
        self._states = list(states)
        self.told: list[tuple[str, Mapping[str, object]]] = []

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, deadline: Deadline
    ) -> Any:
        assert not deadline.expired
        if command == "query-migrate":
            return {"status": self._states.pop(0)}
        self.told.append((command, arguments or {}))
        return {}


def load(monitor: Monitor) -> None:
    load_state(cast("QmpMonitor", monitor), Path("/s/a b"), deadline=Deadline.after(20.0))


def test_a_guest_goes_on_when_its_state_is_there_and_announces_no_card() -> None:
    monitor = Monitor("setup", "active", "completed")
    load(monitor)
    names = [command for command, _ in monitor.told]
    assert names[-2:] == ["migrate-incoming", "cont"]
    told = dict(monitor.told)
    assert told["migrate-incoming"] == {"uri": "exec:exec cat < '/s/a b'"}
    assert told["migrate-set-parameters"] == {"announce-rounds": 0}
    assert names.index("migrate-set-parameters") < names.index("migrate-incoming")


def test_a_state_that_qemu_does_not_load_lets_no_guest_go_on() -> None:
    monitor = Monitor("active", "failed")
    with pytest.raises(MachineError, match="QEMU's migration is failed"):
        load(monitor)
    assert "cont" not in [command for command, _ in monitor.told]
