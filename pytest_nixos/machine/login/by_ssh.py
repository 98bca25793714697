"""The way of an ssh login: from outside to the host's own sshd, with a key that is lent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import MachineError
from pytest_nixos.machine.capabilities import Reachable
from pytest_nixos.machine.login.asked import AskedMachine
from pytest_nixos.machine.login.ssh_login import SshUser, key_lent, sshd_in_force

__all__ = ["ssh_login"]

_LIMIT_S = 60.0


@contextlib.contextmanager
def ssh_login(machine: AskedMachine, user: str, *, port: int | None = None) -> Iterator[SshUser]:
    """Lend a key of the run to a user of a machine, and open the way to its sshd.

    :param port: where sshd listens, by default the first port that its configuration names.
    :raises MachineError: if the machine cannot be reached from outside, is a live host, or has no
        such user or no sshd.
    """
    if machine.backend.name is BackendName.SSH:
        raise MachineError(
            f"{machine.name}: a live host's keys are left alone",
            remedy="run the host as a VM or a container",
        )
    running = machine.running
    if not isinstance(running, Reachable):
        raise MachineError(
            f"{machine.name}: nobody can connect to a machine of the {machine.backend.name.value} backend"
            " from outside",
            remedy="run the host as a VM or a container",
        )
    deadline = machine.deadline(_LIMIT_S)
    in_force = sshd_in_force(
        machine.transport, user, address=running.outside_address, deadline=deadline
    )
    with (
        running.way_to(port or in_force.port, deadline=deadline) as way,
        key_lent(
            machine.transport, user, in_force=in_force, way=way, machine=machine.name
        ) as visitor,
    ):
        yield visitor
