"""Clusters: addresses on a common segment, who belongs to a NATS cluster, and the NATS client."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Mapping
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any, cast

import pytest

from checks.nats.client import NatsClient, NatsError
from checks.nats.members import credentials, members, monitor_port
from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.cluster.cluster import Cluster
from pytest_nixos.machine.cluster.container_port import join_argv, port_argv
from pytest_nixos.machine.network.dhcp import Lease, answer
from pytest_nixos.nix.flake import FlakeHost
from tests.unit.machine.cluster.test_tunnel import tunnel
from tests.unit.machine.network.test_dhcp import DISCOVER, LEASE, message


def test_link_becomes_a_port_of_the_switch() -> None:
    commands = join_argv(11, 22, "port0")
    assert all(argv[0] == "nsenter" for argv in commands)
    assert commands[2] == (
        *("nsenter", "--net=/proc/11/ns/net", "--", "ip", "link", "set"),
        *("port0", "netns", "22"),
    )
    assert commands[-1] == port_argv(22, "port0", "up")


def test_dhcp_answers_one_guest_of_several() -> None:
    packet = message(DISCOVER)
    hardware = packet[28:34]
    own = Lease(server=LEASE.server, guest=LEASE.guest, hardware=hardware)
    other = Lease(server=LEASE.server, guest=LEASE.guest, hardware=b"\x02" * 6)
    assert answer(packet, own) is not None
    assert answer(packet, other) is None


class FakeMachine:
    """Has the names of a host, and remembers what it is told of the others."""

    def __init__(self, attr: str, host_name: str) -> None:
        self.spec = SimpleNamespace(host=SimpleNamespace(name=attr, host_name=host_name))
        self.told = ""

    def run(self, _command: str, *, stdin: bytes) -> Any:
        self.told = stdin.decode()
        return SimpleNamespace(stdout_text="")


def test_members_are_told_of_each_other_by_every_name_that_is_one_members_alone() -> None:
    machines = {
        "a": FakeMachine("a", "alpha"),
        "web": FakeMachine("web", "web"),
        "../other#web": FakeMachine("web", "web"),
        "c": FakeMachine("c", "alpha"),
    }
    addresses = {name: IPv4Address(f"10.0.0.{n}") for n, name in enumerate(machines, 1)}
    cluster = Cluster(
        cast("Any", machines), [], addresses=addresses, plug=lambda _name, _connected: None
    )
    cluster.introduce()
    assert machines["a"].told == "10.0.0.4 c\n"
    assert machines["web"].told == "10.0.0.1 a\n10.0.0.4 c\n"


HOSTS = (
    FlakeHost(name="one", host_name="nats-1", addresses=("10.0.0.1",)),
    FlakeHost(name="two", host_name="nats-2", addresses=("10.0.0.2",)),
)


def routes(*urls: str) -> Mapping[str, Any]:
    return {"cluster": {"routes": list(urls)}}


@pytest.mark.parametrize(
    "route",
    ["nats://nats-2:6222", "nats-route://two:6222", "nats://u:p@10.0.0.2:6222", "nats-2.lan:6222"],
)
def test_routes_name_members(route: str) -> None:
    assert members("one", routes(route), HOSTS) == (("one", "two"), ())


def test_route_to_a_stranger_is_told() -> None:
    found = members("one", routes("nats://10.9.9.9:6222"), HOSTS)
    assert found == (("one",), ("nats://10.9.9.9:6222",))


@pytest.mark.parametrize(
    ("settings", "port"),
    [
        ({"http_port": 8222}, 8222),
        ({"http": "127.0.0.1:8333"}, 8333),
        ({"monitor_port": 1}, 1),
        ({}, None),
        ({"https_port": 8222}, None),
    ],
)
def test_monitoring_port(settings: Mapping[str, Any], port: int | None) -> None:
    assert monitor_port(settings) == port


@pytest.mark.parametrize(
    ("settings", "login"),
    [
        ({}, {}),
        ({"authorization": {"token": "t"}}, {"auth_token": "t"}),
        ({"authorization": {"user": "u", "password": "p"}}, {"user": "u", "pass": "p"}),
        (
            {"authorization": {"users": [{"nkey": "U"}, {"user": "u", "password": "p"}]}},
            {"user": "u", "pass": "p"},
        ),
        ({"authorization": {"user": "u", "password": "$2a$11$x"}}, None),
        ({"tls": {"verify": True}}, None),
        ({"operator": "x"}, None),
    ],
)
def test_credentials(settings: Mapping[str, Any], login: Mapping[str, str] | None) -> None:
    assert credentials(settings) == login


class Server:
    """Says its lines one after another, each once the client has said something that holds its
    cue.
    """

    def __init__(self, *exchanges: tuple[bytes, bytes]) -> None:
        self.client, self._own = socket.socketpair()
        self._exchanges = exchanges
        self.heard = b""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        # A client that refuses what it hears goes away in the middle.
        with self._own, contextlib.suppress(BrokenPipeError):
            for cue, words in self._exchanges:
                while cue not in self.heard:
                    data = self._own.recv(4096)
                    if not data:
                        return
                    self.heard += data
                self.heard = self.heard.partition(cue)[2] if cue else self.heard
                self._own.sendall(words)


INFO = b"INFO " + json.dumps({"server_name": "one"}).encode() + b"\r\n"


def opened(*exchanges: tuple[bytes, bytes]) -> NatsClient:
    server = Server((b"", INFO), (b"PING\r\n", b"PONG\r\n"), *exchanges)
    client = NatsClient(server.client, {"user": "u"})
    client.open(Deadline.after(60))
    return client


def test_client_logs_in_and_receives() -> None:
    with opened(
        (b"SUB a 1\r\nPING\r\n", b"PONG\r\n"),
        (b"PUB b 1\r\nx\r\n", b"PING\r\nMSG a 1 2\r\nhi\r\n"),
        (b"PONG\r\n", b""),
    ) as client:
        deadline = Deadline.after(60)
        client.subscribe("a", deadline)
        client.publish("b", b"x", deadline)
        assert client.receive(deadline) == b"hi"
        assert client.info["server_name"] == "one"


def test_client_tells_refusals() -> None:
    server = Server((b"", INFO), (b"PING\r\n", b"-ERR 'Authorization Violation'\r\n"))
    with (
        NatsClient(server.client, {}) as client,
        pytest.raises(NatsError, match="Authorization Violation"),
    ):
        client.open(Deadline.after(60))


def test_client_does_not_wait_for_ever() -> None:
    with opened() as client, pytest.raises(NatsError):
        client.receive(Deadline.after(0.2))


def test_no_nats_server() -> None:
    server = Server((b"", b"SSH-2.0-OpenSSH\r\n"))
    with NatsClient(server.client, {}) as client, pytest.raises(NatsError, match="no NATS server"):
        client.open(Deadline.after(60))


def test_tunnel_is_found_by_its_members_and_interface() -> None:
    made, machines = tunnel()
    cluster = Cluster(
        cast("Any", machines), (), addresses={}, plug=lambda _name, _up: None, tunnels=[made]
    )
    assert cluster.tunnel("b", "a") is made
    assert cluster.tunnel("a", "b", interface="wg0") is made
    with pytest.raises(MachineError, match=r"a and b have no WireGuard tunnel by .* wg1") as err:
        cluster.tunnel("a", "b", interface="wg1")
    assert "wg0 of a - wg0 of b" in err.value.remedy
    twice = Cluster(
        cast("Any", machines), (), addresses={}, plug=lambda _name, _up: None, tunnels=[made, made]
    )
    with pytest.raises(MachineError, match="more than one"):
        twice.tunnel("a", "b")
