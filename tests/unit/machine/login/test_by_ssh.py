"""Machines to which nobody can log in by ssh with a key that is lent."""

from __future__ import annotations

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import MachineError
from pytest_nixos.machine.login.by_ssh import ssh_login
from tests.support.machine import FakeMachine


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        (BackendName.SSH, "a live host's keys are left alone"),
        (BackendName.VM, "nobody can connect to a machine of the vm backend"),
    ],
)
def test_a_machine_that_is_left_alone_or_cannot_be_reached(backend: BackendName, said: str) -> None:
    machine = FakeMachine(backend=backend, running=object())
    with pytest.raises(MachineError, match=said), ssh_login(machine.as_machine, "alice"):
        pass
    assert machine.commands == []
