"""What the wire tells of a tunnel: handshakes that came to their end, and what went beside it."""

from __future__ import annotations

import struct
import time
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.cluster.capture import Capture
from pytest_nixos.machine.cluster.tunnel import ClusterTunnel, tunnels_of
from pytest_nixos.machine.network.frames import (
    Echo,
    UdpDatagram,
    echo_request,
    udp_datagram,
)
from tests.unit.machine.cluster.test_owners import owners, pair, peer

MACS = (bytes(6), bytes(6))
A, B = IPv4Address("192.168.7.1"), IPv4Address("192.168.7.2")
INSIDE = IPv4Address("10.1.0.1"), IPv4Address("10.1.0.2")
PORT = 51820


def initiation(index: int) -> bytes:
    return struct.pack("<II", 1, index).ljust(148, b"\0")


def response(index: int, of: int) -> bytes:
    return struct.pack("<III", 2, index, of).ljust(92, b"\0")


def data(index: int, size: int = 32) -> bytes:
    return struct.pack("<II", 4, index).ljust(size, b"\0")


def datagram(payload: bytes, *, back: bool = False, port: int = PORT) -> bytes:
    source, destination = (B, A) if back else (A, B)
    ports = (PORT, 40000) if back else (40000, port)
    return udp_datagram(
        MACS,
        UdpDatagram(
            source=source,
            destination=destination,
            source_port=ports[0],
            destination_port=ports[1],
            payload=payload,
        ),
    )


class FakeMachine:
    """Remembers what it ran, and has it answered on the wire."""

    def __init__(self, capture: Capture, frames: tuple[bytes, ...]) -> None:
        self.ran: list[str] = []
        self._capture = capture
        self._frames = frames

    def run(self, command: str) -> None:
        self.ran.append(command)
        for frame in self._frames:
            self._capture.add(frame)


def tunnel(*frames: bytes, refusal: str = "", answers: tuple[bytes, ...] = ()) -> Any:
    a, b = pair(
        peer("B", "10.1.0.2/32", endpoint=f"192.168.7.2:{PORT}"),
        peer("A", "10.1.0.1/32"),
        port=PORT,
    )
    found = owners(a, b)
    capture = Capture()
    for frame in frames:
        capture.add(frame)
    places = [SimpleNamespace(host="a"), SimpleNamespace(host="b")]
    network = SimpleNamespace(name="192.168.7.0/24", places=places, capture=capture)
    apart = SimpleNamespace(name="apart", places=places[:1], capture=Capture())
    machines = {"a": FakeMachine(capture, answers), "b": FakeMachine(capture, ())}
    [made] = tunnels_of(
        found.links,
        machines=cast("Any", machines),
        networks=cast("Any", [apart, network]),
        addresses={"a": frozenset({A}), "b": frozenset({B})},
        refusal=refusal,
    )
    return made, machines


def seen(*frames: bytes) -> tuple[int, int]:
    made: ClusterTunnel = tunnel(*frames)[0]
    traffic = made.traffic()
    return traffic.handshakes, traffic.messages


HANDSHAKE = (
    datagram(initiation(7)),
    datagram(response(9, 7), back=True),
    datagram(data(9)),
)


def test_handshake_that_came_to_its_end() -> None:
    assert seen(*HANDSHAKE) == (1, 0)
    more = datagram(data(9, 128)), datagram(data(7, 128), back=True)
    assert seen(*HANDSHAKE, *more) == (1, 2)


@pytest.mark.parametrize(
    "frames",
    [
        HANDSHAKE[:1],  # nobody answers: the key is not theirs
        HANDSHAKE[:2],  # the answer is not believed: the preshared keys differ
        HANDSHAKE[1:],
        (HANDSHAKE[0], datagram(response(9, 7)), HANDSHAKE[2]),  # answered by who asked
        (*HANDSHAKE[:2], datagram(data(8))),  # under another index
        (datagram(initiation(7)), datagram(response(9, 6), back=True), datagram(data(9))),
        (*HANDSHAKE[:2], datagram(data(9), port=1)),  # another program's port
        (datagram(initiation(7)[:-1]), *HANDSHAKE[1:]),
    ],
)
def test_handshake_that_did_not(frames: tuple[bytes, ...]) -> None:
    assert seen(*frames, datagram(data(9, 128)[:-1], back=True, port=1)) == (0, 0)


def test_data_under_no_handshake_counts_for_nothing() -> None:
    assert seen(datagram(data(9, 128)), datagram(data(7, 128), back=True)) == (0, 0)


def test_what_goes_beside_the_tunnel_in_clear() -> None:
    echo = Echo(source=A, destination=INSIDE[1], is_reply=False, identifier=1, number=1)
    clear = echo_request(MACS, echo)
    tagged = clear[:12] + bytes.fromhex("81000005") + clear[12:]
    ordinary = echo_request(MACS, replace(echo, destination=B))
    made: ClusterTunnel = tunnel(*HANDSHAKE, clear, clear, tagged, ordinary, b"", b"\0" * 20)[0]
    assert made.traffic().in_clear == (f"{A} > {INSIDE[1]} on 192.168.7.0/24",)
    assert made.traffic(since_s=4e9).in_clear == ()
    assert len(tunnel(tagged)[0].traffic().in_clear) == 1
    assert made.traffic(since_s=4e9).handshakes == 0


def test_handshake_is_asked_for_from_both_ends() -> None:
    made, machines = tunnel(answers=HANDSHAKE)
    assert made.handshake(limit_s=5)
    assert machines["a"].ran == ["(echo >/dev/udp/10.1.0.2/9) 2>&1 || true"]
    assert machines["b"].ran == ["(echo >/dev/udp/10.1.0.1/9) 2>&1 || true"]
    assert not tunnel()[0].handshake(limit_s=0.1)


def test_kernel_without_wireguard_is_the_cause() -> None:
    made, machines = tunnel(refusal="this machine's kernel has no WireGuard")
    with pytest.raises(MachineError, match="wg0 of a - wg0 of b: this machine's kernel") as err:
        made.handshake()
    assert "modprobe wireguard" in err.value.remedy
    assert machines["a"].ran == []


def test_tunnel_without_an_address_inside_is_refused() -> None:
    a, b = pair(
        peer("B", endpoint="192.168.7.2:1"), peer("A", endpoint="192.168.7.1:1"), addresses=()
    )
    a = replace(a, tunnels=(replace(a.tunnels[0], addresses=()),))
    [made] = tunnels_of(owners(a, b).links, machines={}, networks=(), addresses={})
    with pytest.raises(MachineError, match="neither end has an address"):
        made.handshake()
    assert made.name == "wg0 of a - wg0 of b"


def test_data_under_a_handshake_of_before_counts() -> None:
    made, machines = tunnel(*HANDSHAKE, answers=(datagram(data(9, 128)),))
    since_s = time.time()
    machines["a"].run("send")
    seen = made.traffic(since_s=since_s)
    assert (seen.handshakes, seen.messages) == (0, 1)
