"""A live host as it looks from here: whose packets they were, and how many ports are tried."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from pytest_nixos import MachineError, PortState, Survey
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.ssh.outside import (
    MOST_PORTS,
    Ends,
    holder_of,
    look_from_here,
    parse_ends,
)

LISTING = """1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever
2: eth0    inet 192.0.2.7/24 brd 192.0.2.255 scope global eth0\\       valid_lft forever
2: eth0    inet6 2001:db8::7/64 scope global \\       valid_lft forever
"""
HERE = ip_address("127.0.0.1")


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("192.0.2.1 40000 192.0.2.7 22\n", ("192.0.2.1", "192.0.2.7")),
        ("fe80::1%eth0 40000 fe80::2%eth0 22", ("fe80::1", "fe80::2")),
        ("::ffff:192.0.2.1 40000 ::ffff:192.0.2.7 22", ("192.0.2.1", "192.0.2.7")),
        ("", None),
        ("motd motd motd motd", None),
    ],
)
def test_the_host_tells_who_we_are(text: str, ends: tuple[str, str] | None) -> None:
    expected = None if ends is None else Ends(ip_address(ends[0]), ip_address(ends[1]))
    assert parse_ends(text) == expected


def test_the_interface_is_the_one_with_the_address() -> None:
    assert holder_of(LISTING, ip_address("192.0.2.7")) == "eth0"
    assert holder_of(LISTING, ip_address("2001:db8::7")) == "eth0"
    assert holder_of(LISTING, ip_address("192.0.2.8")) == ""


def test_ports_are_tried_for_real() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_server(("127.0.0.1", 0)) as gone,
    ):
        port, closed = server.getsockname()[1], gone.getsockname()[1]
        gone.close()
        view = look_from_here(
            "live", Survey(tcp=[port, closed]), HERE, Ends(HERE, HERE), LISTING, Deadline.after(60)
        )
    assert view.tcp == {port: PortState.OPEN, closed: PortState.CLOSED}
    assert (view.interface, view.family) == ("lo", "ip")
    assert (view.stranger, view.guest, view.own_frames) == (HERE, HERE, False)


def test_behind_a_translator_nobody_knows_whose_packets_are_judged() -> None:
    ends = Ends(ip_address("192.0.2.1"), ip_address("192.0.2.7"))
    for found in (ends, None):
        view = look_from_here("live", Survey(tcp=[]), HERE, found, LISTING, Deadline.after(60))
        assert (view.interface, view.stranger, view.guest) == ("", None, None)


def test_a_live_host_is_not_flooded() -> None:
    wanted = Survey(tcp=range(1, MOST_PORTS + 2))
    with pytest.raises(MachineError, match="4097 ports are more than"):
        look_from_here("live", wanted, HERE, None, LISTING, Deadline.after(60))
