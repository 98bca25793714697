"""A login that cannot even begin, since a packet filter drops the port of sshd."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from checks.ssh.test_logins import _log_in
from pytest_nixos import Machine, PortState


class Guest:
    """A machine with an sshd on port 2222."""

    def __init__(self, seen: PortState) -> None:
        self.seen = seen
        self.tried: list[str] = []

    @contextlib.contextmanager
    def ssh_login(self, user: str) -> Iterator[Any]:
        in_force = SimpleNamespace(
            port=2222, key_is_enough=True, accepts_keys=True, reads_declared_keys=True
        )

        def run(command: str, *, timeout_s: float) -> Any:
            self.tried.append(user)
            return SimpleNamespace(exit_status=0)

        yield SimpleNamespace(in_force=in_force, run=run)

    def probe_tcp(self, ports: Sequence[int]) -> Mapping[int, PortState]:
        return dict.fromkeys(ports, self.seen)


def test_nobody_waits_for_a_port_that_answers_nothing() -> None:
    guest = Guest(PortState.FILTERED)
    end = _log_in(cast("Machine", guest), "ada")
    assert (end.entered, guest.tried) == (None, [])
    assert "TCP port 2222" in end.said


@pytest.mark.parametrize("seen", [PortState.OPEN, PortState.CLOSED])
def test_sshd_itself_tells_where_the_port_answers(seen: PortState) -> None:
    guest = Guest(seen)
    assert _log_in(cast("Machine", guest), "ada").entered
    assert guest.tried == ["ada"]
