"""The prober against a small guest of our own on the two sockets that QEMU serves."""

from __future__ import annotations

import contextlib
import socket
import struct
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from msgspec.structs import replace

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.capabilities import PortState
from pytest_nixos.machine.network.frames import (
    Address,
    ArpMessage,
    Frame,
    Segment,
    TcpFlag,
    UdpDatagram,
    arp_reply,
    arp_request,
    parse_frame,
    tcp_segment,
    udp_datagram,
)
from pytest_nixos.machine.network.guest_address import parse_outer
from pytest_nixos.machine.network.prober import FrameProber
from pytest_nixos.machine.network.wire import FrameLink
from pytest_nixos.machine.survey import Survey

GUEST, MAC = IPv4Address("10.0.2.15"), bytes.fromhex("525400123456")
OPEN, CLOSED, PROHIBITED, LOSSY = range(20, 30), range(30, 40), range(40, 50), range(50, 52)


class SmallGuest:
    """Opens, refuses, prohibits or ignores by port number; loses the first SYN to some."""

    def __init__(self, run_dir: Path) -> None:
        self.resets: list[int] = []
        self.asked: list[tuple[str, int]] = []
        self.delay_s = 0.0
        self._seen: set[int] = set()
        self._in, self._out = (socket.socket(socket.AF_UNIX) for _ in range(2))
        self._in.bind(str(run_dir / "net-in.sock"))
        self._out.bind(str(run_dir / "net-out.sock"))
        self._hearer: socket.socket | None = None
        for listener, loop in ((self._in, self._hear), (self._out, self._accept)):
            listener.listen()
            threading.Thread(target=loop, daemon=True).start()

    def close(self) -> None:
        self._in.close()
        self._out.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._hearer, _ = self._out.accept()

    def _hear(self) -> None:
        # Only one connection, ever: as QEMU's filter-redirector.
        connection, _ = self._in.accept()
        with connection.makefile("rb") as stream:
            while head := stream.read(4):
                frame = parse_frame(stream.read(struct.unpack("!I", head)[0]))
                for answer in self._answers(frame):
                    with contextlib.suppress(OSError):
                        # QEMU drops what nobody hears.
                        if self._hearer is not None:
                            self._hearer.sendall(struct.pack("!I", len(answer)) + answer)

    def _answers(self, frame: Frame | None) -> Iterator[bytes]:
        if isinstance(frame, Segment | UdpDatagram):
            self.asked.append((type(frame).__name__, frame.destination_port))
        if isinstance(frame, ArpMessage) and frame.target == GUEST:
            yield arp_request(MAC, GUEST, frame.sender)
            yield arp_reply(MAC, GUEST, frame.sender_mac, frame.sender)
        elif isinstance(frame, Segment):
            yield from self._segment_answers(frame)
        elif isinstance(frame, UdpDatagram) and frame.destination_port in OPEN:
            back = replace(
                frame,
                source=GUEST,
                destination=frame.source,
                source_port=frame.destination_port,
                destination_port=frame.source_port,
            )
            yield udp_datagram((b"\2" * 6, MAC), back)
        elif isinstance(frame, UdpDatagram) and frame.destination_port in CLOSED:
            yield unreachable(udp_datagram((MAC, MAC), frame), frame.source, code=3)

    def _segment_answers(self, frame: Segment) -> Iterator[bytes]:
        port = frame.destination_port
        if TcpFlag.RST in frame.flags:
            self.resets.append(port)
            return
        lost = port in LOSSY and port not in self._seen
        self._seen.add(port)
        if port in PROHIBITED:
            yield unreachable(tcp_segment((MAC, MAC), frame), frame.source, code=13)
        elif port in CLOSED or port in OPEN or (port in LOSSY and not lost):
            flags = TcpFlag.RST if port in CLOSED else TcpFlag.SYN
            back = Segment(
                source=GUEST,
                destination=frame.source,
                source_port=port,
                destination_port=frame.source_port,
                sequence=99,
                acknowledgement=(frame.sequence + 1) & 0xFFFFFFFF,
                flags=flags | TcpFlag.ACK,
            )
            if self.delay_s:
                # An answer to an older question says nothing about this one.
                assert isinstance(frame.source, IPv4Address)
                yield arp_reply(MAC, GUEST, b"\2" * 6, frame.source)
                time.sleep(self.delay_s)
            # Neither an answer to somebody else nor one with a wrong number may count.
            yield tcp_segment(
                (b"\2" * 6, MAC),
                replace(back, source_port=65_000, acknowledgement=3),
            )
            yield tcp_segment((b"\2" * 6, MAC), back)


def unreachable(original: bytes, to: Address, *, code: int) -> bytes:
    icmp = struct.pack("!BBHI", 3, code, 0, 0) + original[14:42]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(icmp), 0, 0, 64, 1, 0)
    return b"\2" * 6 + MAC + b"\x08\0" + head + GUEST.packed + to.packed + icmp


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.fixture
def guest(run_dir: Path) -> Iterator[SmallGuest]:
    guest = SmallGuest(run_dir)
    yield guest
    guest.close()


def prober(run_dir: Path) -> FrameProber:
    return FrameProber(FrameLink(run_dir), turn_s=0.05)


def test_tcp_ports_are_what_they_answer(run_dir: Path, guest: SmallGuest) -> None:
    states = prober(run_dir).probe_tcp(range(20, 60), deadline=Deadline.after(20))
    assert [port for port, state in states.items() if state is PortState.OPEN] == [*OPEN, *LOSSY]
    assert [port for port, state in states.items() if state is PortState.CLOSED] == [*CLOSED]
    assert {states[port] for port in (*PROHIBITED, *range(52, 60))} == {PortState.FILTERED}
    assert list(states) == list(range(20, 60))


def test_open_connections_are_taken_down(run_dir: Path, guest: SmallGuest) -> None:
    stranger = prober(run_dir)
    stranger.probe_tcp(OPEN, deadline=Deadline.after(20))
    stranger.ping(deadline=Deadline.after(20))
    assert guest.resets == [*OPEN]


def test_slow_guest_is_waited_for(run_dir: Path, guest: SmallGuest) -> None:
    guest.delay_s = 0.2
    states = prober(run_dir).probe_tcp([20, 21], deadline=Deadline.after(20))
    assert states == {20: PortState.OPEN, 21: PortState.OPEN}


def test_udp_ports(run_dir: Path, guest: SmallGuest) -> None:
    states = prober(run_dir).probe_udp([20, 30, 45], deadline=Deadline.after(20), payload=b"?")
    assert states == {20: PortState.OPEN, 30: PortState.CLOSED, 45: PortState.FILTERED}


def test_many_ports_and_a_second_probe(run_dir: Path, guest: SmallGuest) -> None:
    stranger = prober(run_dir)
    for _ in range(2):
        states = stranger.probe_tcp(range(1, 700), deadline=Deadline.after(20))
        assert sum(state is PortState.OPEN for state in states.values()) >= len(OPEN)


def test_threads_take_turns(run_dir: Path, guest: SmallGuest) -> None:
    stranger = prober(run_dir)
    found: list[PortState] = []

    def probe(port: int) -> None:
        found.append(stranger.probe_tcp([port], deadline=Deadline.after(20))[port])

    threads = [threading.Thread(target=probe, args=(port,)) for port in (20, 21, 22)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [PortState.OPEN] * 3


def test_silent_network_names_address_and_remedy(run_dir: Path, guest: SmallGuest) -> None:
    stranger = FrameProber(FrameLink(run_dir), guest=IPv4Address("10.0.2.99"))
    with pytest.raises(TransportError, match=r"no guest answers at 10\.0\.2\.99") as caught:
        stranger.probe_tcp([22], deadline=Deadline.after(0.3))
    assert "DHCP" in caught.value.remedy


def test_machine_that_is_not_there(run_dir: Path) -> None:
    with pytest.raises(TransportError, match="cannot reach the guest's network"):
        prober(run_dir).probe_tcp([22], deadline=Deadline.after(1))


def test_closed_prober_refuses(run_dir: Path, guest: SmallGuest) -> None:
    stranger = prober(run_dir)
    stranger.probe_tcp([20], deadline=Deadline.after(20))
    stranger.close()
    with pytest.raises(TransportError, match="not listened to"):
        stranger.probe_tcp([20], deadline=Deadline.after(1))


def test_a_stranger_stands_beside_a_guest_with_a_static_address(tmp_path: Path) -> None:
    prober = FrameProber(FrameLink(tmp_path))
    prober.face(IPv4Interface("10.0.2.15/24"))
    assert str(prober._stranger) == "10.0.2.77"
    prober.face(IPv4Interface("10.0.31.254/19"))
    assert (str(prober._guest), str(prober._stranger)) == ("10.0.31.254", "10.0.31.253")


LISTING = """1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever
2: podman0    inet 10.88.0.1/16 brd 10.88.255.255 scope global podman0
3: eth0    inet 10.233.0.2/24 scope global eth0\\       valid_lft forever preferred_lft forever
3: eth0    inet6 fe80::a44f:89ff:fe5c:ea13/64 scope link \\       valid_lft forever preferred_lft forever
3: eth0    inet6 2001:db8::9/64 scope global temporary dynamic \\       valid_lft 100sec preferred_lft 50sec
"""


def test_the_guests_end_of_the_network_is_found_in_its_own_words() -> None:
    (outer,) = parse_outer(LISTING)
    assert (outer.interface, str(outer.v4)) == ("eth0", "10.233.0.2/24")
    assert str(outer.v6) == "fe80::a44f:89ff:fe5c:ea13/64"
    (lasting,) = parse_outer(LISTING.replace(" temporary", ""))
    assert str(lasting.v6) == "2001:db8::9/64"
    assert parse_outer("1: lo    inet 127.0.0.1/8 scope host lo") == ()


LINKS = """3: eth0@if7: <BROADCAST,UP> mtu 1500 \\    link/ether 02:00:00:00:00:03 brd ff:ff:ff:ff:ff:ff
4: eth1: <BROADCAST,UP> mtu 1500 \\    link/ether 02:00:00:00:00:04 brd ff:ff:ff:ff:ff:ff
"""


def test_each_network_of_a_guest_is_found() -> None:
    more = "4: eth1    inet 192.0.2.7/24 scope global eth1\n"
    outer = parse_outer(more + LISTING + LINKS)
    assert [(o.interface, str(o.v4), o.mac[-1]) for o in outer] == [
        ("eth1", "192.0.2.7/24", 4),
        ("eth0", "10.233.0.2/24", 3),
    ]


# As iproute2 6.15 prints them with -details, what follows the kind left out.
DETAILED = """3: eth0@if7: <BROADCAST,UP> mtu 1500 state UP \\    link/ether 02:00:00:00:00:03 brd ff:ff:ff:ff:ff:ff promiscuity 0 \\    veth addrgenmode eui64
4: eth1: <BROADCAST,UP> mtu 1500 master br1 \\    link/ether 02:00:00:00:00:04 brd ff:ff:ff:ff:ff:ff promiscuity 1 \\    bridge_slave state forwarding priority 32
5: br0: <BROADCAST> mtu 1500 \\    link/ether 02:00:00:00:00:05 brd ff:ff:ff:ff:ff:ff \\    bridge forward_delay 1500
6: br1: <BROADCAST> mtu 1500 \\    link/ether 02:00:00:00:00:04 brd ff:ff:ff:ff:ff:ff \\    bridge forward_delay 1500
7: lan20@eth0: <BROADCAST> mtu 1500 \\    link/ether 02:00:00:00:00:03 brd ff:ff:ff:ff:ff:ff \\    vlan protocol 802.1Q id 20
8: vpn: <POINTOPOINT> mtu 1420 \\    link/none  promiscuity 0 \\    wireguard addrgenmode none
9: bond0: <BROADCAST> mtu 1500 \\    link/ether 02:00:00:00:00:09 brd ff:ff:ff:ff:ff:ff \\    bond mode balance-rr miimon 0
"""


def test_a_guest_without_a_lease_yet_is_not_met_on_a_bridge_without_a_card() -> None:
    names = {"5": "br0", "6": "br1", "7": "lan20", "8": "vpn", "9": "bond0"}
    made = "".join(
        f"{n}: {name}    inet 10.{n}.0.5/24 scope global {name}\n" for n, name in names.items()
    )
    found = [outer.interface for outer in parse_outer(made + DETAILED)]
    # What stands on the card's own network alone: a bridge that has one.
    assert found == ["br1"]
    assert [outer.interface for outer in parse_outer(LISTING + DETAILED)] == ["eth0"]
    assert [outer.interface for outer in parse_outer(made)] == list(names.values())


def test_who_answers_for_another_interface_is_not_that_interface(
    run_dir: Path, guest: SmallGuest
) -> None:
    (outer,) = parse_outer(LISTING.replace("10.233.0.2/24", f"{GUEST}/24") + LINKS)
    stranger = prober(run_dir)
    assert not stranger.stands_beside(outer, deadline=Deadline.after(20))
    own = replace(outer, mac=MAC)
    assert stranger.stands_beside(own, deadline=Deadline.after(20))
    silent = replace(own, v4=IPv4Interface("192.0.2.1/24"))
    assert not stranger.stands_beside(silent, deadline=Deadline.after(0.3))


def test_a_survey_tries_every_port_once_and_patient_ones_again(
    run_dir: Path, guest: SmallGuest
) -> None:
    (outer,) = parse_outer(LISTING.replace("10.233.0.2/24", f"{GUEST}/24").replace("inet6", "none"))
    wanted = Survey(tcp=range(20, 60), patient_tcp=[LOSSY[0]], udp=[OPEN[0], CLOSED[0]])
    (view,) = prober(run_dir).survey(wanted, outer, deadline=Deadline.after(20))
    opened = [port for port, state in view.tcp.items() if state is PortState.OPEN]
    # The first SYN to these is lost, so that only patience finds them.
    assert opened == [*OPEN, LOSSY[0]]
    assert (view.interface, view.family) == ("eth0", "ip")
    assert view.udp == {OPEN[0]: PortState.OPEN, CLOSED[0]: PortState.CLOSED}
    assert not view.answers_ping


def test_silence_is_waited_for_once_for_all_kinds_of_probes(
    run_dir: Path, guest: SmallGuest
) -> None:
    (outer,) = parse_outer(LISTING.replace("10.233.0.2/24", f"{GUEST}/24").replace("inet6", "none"))
    silent_tcp, silent_udp = ("Segment", 59), ("UdpDatagram", 45)
    wanted = Survey(tcp=[59], patient_tcp=[59], udp=[45])
    (view,) = prober(run_dir).survey(wanted, outer, deadline=Deadline.after(20))
    assert (view.tcp, view.udp) == ({59: PortState.FILTERED}, {45: PortState.FILTERED})
    assert guest.asked == [silent_tcp, *[silent_tcp, silent_udp] * 3]


class Patient:
    """A wire whose guest answers its oldest question whenever it is listened to."""

    def __init__(self) -> None:
        self.most_under_way = 0
        self._under_way: deque[bytes] = deque()

    @contextlib.contextmanager
    def listening(self) -> Iterator[Patient]:
        yield self

    def send(self, frames: list[bytes], *, deadline: Deadline) -> None:
        self._under_way.extend(frames)
        self.most_under_way = max(self.most_under_way, len(self._under_way))

    def frames(self, *, limit_s: float) -> Iterator[bytes]:
        while self._under_way:
            frame = parse_frame(self._under_way.popleft())
            if isinstance(frame, ArpMessage):
                yield arp_reply(MAC, GUEST, frame.sender_mac, frame.sender)
                return

    def close(self) -> None: ...


def test_the_guest_has_the_next_probes_while_it_judges_some_and_never_more_than_it_can_hold() -> (
    None
):
    wire = Patient()
    stranger = FrameProber(wire, turn_s=0.0)
    stranger.probe_tcp(range(1, 1000), deadline=Deadline.after(20))
    ring = 256
    assert ring / 2 + 1 < wire.most_under_way <= ring
