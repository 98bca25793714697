"""What a stranger sees of TCP ports, against real sockets of loopback."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import pytest

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.capabilities import PortState
from pytest_nixos.machine.network.scan import scan_tcp

HOME = IPv4Address("127.0.0.1")


def free_ports(count: int) -> list[int]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def test_open_and_closed_ports_are_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (free,) = free_ports(1)
        found = scan_tcp(HOME, [free, port, port], deadline=Deadline.after(60))
    assert found == {port: PortState.OPEN, free: PortState.CLOSED}


def test_silence_is_filtered_and_does_not_hold_the_others() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        # A full queue drops further SYNs, as a firewall does.
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        time.sleep(0.05)
        started_s = time.monotonic()
        found = scan_tcp(
            HOME, [port, *free_ports(200)], deadline=Deadline.after(60), patience_s=0.3
        )
        for filler in fillers:
            filler.close()
    assert found[port] is PortState.FILTERED
    assert list(found.values()).count(PortState.CLOSED) == 200
    assert time.monotonic() - started_s < 2


def before_first_look(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], bool]) -> None:
    """Let something happen between the connections and the first look at them.

    :param happens: returns whether that look sees nothing.
    """

    class Late(selectors.DefaultSelector):
        looked = False

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            first, self.looked = not self.looked, True
            return [] if first and happens() else super().select(timeout)

    monkeypatch.setattr(selectors, "DefaultSelector", Late)


def test_a_service_that_resets_what_it_took_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]

    def end_of_service() -> bool:
        server.close()
        return False

    before_first_look(monkeypatch, end_of_service)
    assert scan_tcp(HOME, [port], deadline=Deadline.after(60)) == {port: PortState.OPEN}


def test_our_own_sleep_is_not_the_silence_of_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep() -> bool:
        time.sleep(0.1)
        return True

    before_first_look(monkeypatch, sleep)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = scan_tcp(HOME, [port], deadline=Deadline.after(60), patience_s=0.05)
    assert found == {port: PortState.OPEN}


def test_more_ports_than_descriptors_are_tried_in_turns() -> None:
    found = scan_tcp(HOME, range(20000, 26000), deadline=Deadline.after(20))
    assert len(found) == 6000


def test_no_time_is_no_judgement() -> None:
    with pytest.raises(TransportError, match="only 0 TCP ports"):
        scan_tcp(HOME, [1], deadline=Deadline.after(0))


def test_a_fault_on_this_side_is_no_judgement() -> None:
    # A link-local address without its link.
    with pytest.raises(TransportError, match="cannot be tried from here"):
        scan_tcp(IPv6Address("fe80::1"), [1], deadline=Deadline.after(60))
