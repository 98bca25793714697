"""Clusters: addresses on a common segment, who belongs to a NATS cluster, and the NATS client."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from checks.nats.client import NatsClient, NatsError
from checks.nats.members import credentials, members, monitor_port
from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.cluster.segment import join_argv, port_argv
from pytest_nixos.machine.network.dhcp import Lease, answer
from pytest_nixos.machine.network.scan import segment_addresses
from pytest_nixos.nix.declared import Declared
from pytest_nixos.nix.flake import FlakeHost
from pytest_nixos.nix.host_facts import HostConfig, parse_host_config
from pytest_nixos.nix.refs import FlakeRef, HostRef
from tests.unit.host_documents import document
from tests.unit.machine.network.test_dhcp import DISCOVER, LEASE, message


def host(name: str, address: str | None = None) -> HostConfig:
    made = parse_host_config(HostRef(FlakeRef("/f"), name), document(), option_paths=())
    if address is None:
        return made
    value = {"eth0": {"ipv4": {"addresses": [{"address": address, "prefixLength": 24}]}}}
    option = Declared(path="networking.interfaces", state="present", value=value)
    return replace(made, options={option.path: option})


def test_hosts_without_addresses_get_some_that_differ() -> None:
    found = segment_addresses([host("a"), host("b"), host("c")])
    targets = [str(link.target) for link in found.values()]
    assert targets == ["10.233.0.2", "10.233.0.3", "10.233.0.4"]
    assert {str(link.outside) for link in found.values()} == {"10.233.0.1/24"}
    assert str(found["b"].guest) == "10.233.0.3/24"


def test_declared_addresses_stay() -> None:
    found = segment_addresses([host("a", "10.20.0.1"), host("b", "10.20.0.2"), host("c")])
    assert [str(link.target) for link in found.values()][:2] == ["10.20.0.1", "10.20.0.2"]
    # The stranger takes what is free for all, not only beside one of them.
    assert {str(found[n].outside) for n in ("a", "b")} == {"10.20.0.3/24"}
    assert found["a"].guest is None
    assert found["c"].guest is not None


def test_two_hosts_with_one_address_are_refused() -> None:
    with pytest.raises(MachineError, match=r"b: declares 10\.20\.0\.1 .* and so does a"):
        segment_addresses([host("a", "10.20.0.1"), host("b", "10.20.0.1")])


def test_link_becomes_a_port_of_the_bridge() -> None:
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
    client.open(Deadline.after(5))
    return client


def test_client_logs_in_and_receives() -> None:
    with opened(
        (b"SUB a 1\r\nPING\r\n", b"PONG\r\n"),
        (b"PUB b 1\r\nx\r\n", b"PING\r\nMSG a 1 2\r\nhi\r\n"),
        (b"PONG\r\n", b""),
    ) as client:
        deadline = Deadline.after(5)
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
        client.open(Deadline.after(5))


def test_client_does_not_wait_for_ever() -> None:
    with opened() as client, pytest.raises(NatsError):
        client.receive(Deadline.after(0.2))


def test_no_nats_server() -> None:
    server = Server((b"", b"SSH-2.0-OpenSSH\r\n"))
    with NatsClient(server.client, {}) as client, pytest.raises(NatsError, match="no NATS server"):
        client.open(Deadline.after(5))
