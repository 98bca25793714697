"""Ports that QEMU's user network passes on; what the monitor says is QEMU's own."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any, cast

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.qemu.forward import forwarded_port
from pytest_nixos.machine.qemu.qmp import QmpMonitor

GUEST = IPv4Address("10.0.2.15")
LISTED = """Hub -1 (user.0):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[HOST_FORWARD]  31       127.0.0.1 40123       10.0.2.15    22     0     0
  UDP[236 sec]       28       10.0.2.15 46000        10.0.2.3    53     0     0
"""


class Monitor:
    def __init__(self, added: str = "", listed: str = LISTED) -> None:
        self.lines: list[str] = []
        self._answers = {
            "hostfwd_add": added,
            "info": listed,
            "hostfwd_remove": "host forwarding rule removed\r\n",
        }

    def execute(self, command: str, arguments: dict[str, Any], *, deadline: Deadline) -> str:
        assert command == "human-monitor-command"
        self.lines.append(arguments["command-line"])
        return self._answers[self.lines[-1].split()[0]]


def forwarded(monitor: Monitor) -> Any:
    return forwarded_port(
        cast("QmpMonitor", monitor), "user.0", GUEST, 22, deadline=Deadline.after(1)
    )


def test_a_free_port_is_passed_on_and_given_back() -> None:
    monitor = Monitor()
    with forwarded(monitor) as port:
        assert port == 40123
        assert monitor.lines[0] == "hostfwd_add user.0 tcp:127.0.0.1:0-10.0.2.15:22"
    assert monitor.lines[-1] == "hostfwd_remove user.0 tcp:127.0.0.1:40123"


@pytest.mark.parametrize(
    "monitor",
    [
        Monitor("could not set up host forwarding rule 'tcp:127.0.0.1:0-10.0.2.15:22'\r\n"),
        Monitor(listed=LISTED.replace("10.0.2.15    22", "10.0.2.15    23")),
    ],
)
def test_a_network_that_passes_nothing_on_is_an_error(monitor: Monitor) -> None:
    with pytest.raises(MachineError, match="no way to port 22"), forwarded(monitor):
        pass
