"""Sockets and addresses: recorded tables of the kernel, and those of this machine."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from pytest_nixos.observe.base import observe
from pytest_nixos.observe.network.socket import Protocol, addresses, sockets
from tests.unit.observe.here import here, parsed

TABLES = """=tcp
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 11 1
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1
   2: 0F02000A:0016 0202000A:D2F0 01 00000000:00000000 00:00000000 00000000     0        0 13 1
   3: truncated
=tcp6
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14 1
   1: 00000000000000000000000000000000:2CAA 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000   900        0 15 1
   2: 0000000000000000FFFF00000F02000A:2CAA 0000000000000000FFFF00000202000A:0001 01 00000000:00000000 00:00000000 00000000   900        0 16 1
=udp
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
   0: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   990        0 17 2 0 0
=unix
Num       RefCount Protocol Flags    Type St Inode Path
0000: 00000002 00000000 00010000 0001 01 18 /run/a b.sock
0000: 00000003 00000000 00000000 0001 03 19 /run/a b.sock
0000: 00000002 00000000 00000000 0002 01 20
=bindv6only 0
=owners
/proc/77/fd/3 socket:[15]
/proc/1/fd/9 socket:[15]
=cgroups
77 /system.slice/ollama.service .ollama-wrapped
1 /init.scope systemd
"""


def test_listening_sockets_with_their_addresses() -> None:
    found = parsed(sockets(), TABLES)
    assert found.reachable_ports(Protocol.TCP) == [22, 11434]
    assert found.reachable_ports(Protocol.UDP) == []
    # Port 22 has an IPv4 socket of its own, so its IPv6 socket cannot take IPv4.
    assert found.addresses(Protocol.TCP, 22) == ["0.0.0.0", "::"]
    assert [s.dual_stack for s in found.listening(Protocol.TCP) if s.address == "::"] == [
        False,
        True,
    ]
    assert found.addresses(Protocol.TCP, 11434) == ["0.0.0.0", "::"]
    assert found.has_ipv6


def test_connected_sockets_show_ipv4_in_ipv6_as_ipv4() -> None:
    peers = [(s.address, s.peer) for s in parsed(sockets(), TABLES).inet if s.peer]
    assert peers == [("10.0.2.15", ("10.0.2.2", 54000)), ("10.0.2.15", ("10.0.2.2", 1))]


def test_unix_sockets_keep_blanks_in_their_paths() -> None:
    found = parsed(sockets(), TABLES).unix
    assert [(s.path, s.listening, s.connected) for s in found] == [
        ("/run/a b.sock", True, False),
        ("/run/a b.sock", False, True),
    ]


def test_owners_are_named_with_their_units() -> None:
    found = parsed(sockets(), TABLES)
    assert found.units(Protocol.TCP, 11434) == ["init.scope", "ollama.service"]
    assert found.owners[15][1].comm == ".ollama-wrapped"
    assert found.units_by_port()[11434] == ["init.scope", "ollama.service"]


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_real_socket_and_its_owner_are_found(listening: int) -> None:
    found = observe(here, sockets(owners=True))
    assert found.addresses(Protocol.TCP, listening) == ["127.0.0.1"]
    assert listening not in found.reachable_ports(Protocol.TCP)
    inode = next(s.inode for s in found.listening(Protocol.TCP) if s.port == listening)
    assert [owner.comm for owner in found.owners[inode]] != []


def test_addresses() -> None:
    links = [{"addr_info": [{"local": "10.0.0.41", "prefixlen": 19}]}, {"addr_info": [{}]}]
    assert parsed(addresses(), json.dumps(links)) == ("10.0.0.41/19",)
    assert parsed(addresses(), 'Object "address" is unknown') is None
