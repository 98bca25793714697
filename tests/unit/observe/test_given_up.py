"""Whoever waits for a service stops when it has failed."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pytest_nixos import observe
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.command import CommandResult


class Guest:
    def __init__(self, exit_status: int) -> None:
        self.exit_status = exit_status
        self.commands: list[str] = []

    def run(self, command: str, **_more: Any) -> CommandResult:
        self.commands.append(command)
        return CommandResult(
            command=command, exit_status=self.exit_status, stdout=b"", stderr=b"", duration_s=0.0
        )


# systemctl(1), is-failed: 0 if any unit is failed.
@pytest.mark.parametrize(("exit_status", "failed"), [(0, True), (1, False), (4, False)])
def test_systemd_says_whether_a_unit_has_failed(exit_status: int, failed: bool) -> None:
    guest = Guest(exit_status)
    assert observe.has_failed(cast("Machine", guest), "a.service", "odd name.service") is failed
    assert guest.commands == ["systemctl is-failed --quiet a.service 'odd name.service'"]
