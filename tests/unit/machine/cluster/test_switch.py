"""The switch: who hears what, in which order, and what is kept of it."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.machine.cluster.capture import Capture
from pytest_nixos.machine.cluster.impairment import Impairment, Rule
from pytest_nixos.machine.cluster.port import restored_tag
from pytest_nixos.machine.cluster.switch import Switch

A, B, C = (bytes((2, 0, 0, 0, 0, n)) for n in (1, 2, 3))
ALL = b"\xff" * 6


class Card:
    """A VM's network card, as QEMU serves it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.wire.connect(str(path))

    def send(self, to: bytes, sender: bytes, text: bytes) -> bytes:
        frame = to + sender + b"\x08\x00" + text
        self.wire.sendall(struct.pack("!I", len(frame)) + frame)
        return frame

    def hear(self, limit_s: float = 5.0) -> bytes | None:
        """Return the text of the next frame, ``None`` if there is none in time."""
        self.wire.settimeout(limit_s)
        try:
            (size,) = struct.unpack("!I", self.wire.recv(4, socket.MSG_WAITALL))
        except TimeoutError:
            return None
        return self.wire.recv(size, socket.MSG_WAITALL)[14:]


@pytest.fixture
def capture() -> Capture:
    return Capture()


@pytest.fixture
def switch(capture: Capture) -> Iterator[Switch]:
    with Switch(capture=capture) as made:
        yield made


@pytest.fixture
def cards(switch: Switch, tmp_path: Path) -> Iterator[tuple[Card, Card, Card]]:
    found = []
    for name in "abc":
        switch.add_card(name, tmp_path / name)
        found.append(Card(tmp_path / name))
    a, b, c = found
    # Everybody has been heard, so that frames find their way.
    for card, own in ((a, A), (b, B), (c, C)):
        card.send(ALL, own, b"here")
    for card in found:
        assert [card.hear(), card.hear()] == [b"here", b"here"]
    yield a, b, c
    for card in found:
        card.wire.close()


def test_frames_reach_whom_they_are_for(cards: tuple[Card, Card, Card]) -> None:
    a, b, c = cards
    a.send(B, A, b"to b")
    a.send(ALL, A, b"to all")
    assert [b.hear(), b.hear()] == [b"to b", b"to all"]
    assert c.hear() == b"to all"


def test_who_is_apart_meets_nobody_until_brought_in(
    switch: Switch, cards: tuple[Card, Card, Card], tmp_path: Path
) -> None:
    a, *_ = cards
    switch.add_card("d", tmp_path / "d", apart=True)
    late = Card(tmp_path / "d")
    late.send(ALL, bytes((2, 0, 0, 0, 0, 4)), b"hello?")
    assert a.hear(0.2) is None
    switch.bring_in("d")
    late.send(ALL, bytes((2, 0, 0, 0, 0, 4)), b"hello")
    assert a.hear() == b"hello"
    late.wire.close()


def test_a_rule_holds_between_those_it_names_and_ends(
    switch: Switch, cards: tuple[Card, Card, Card]
) -> None:
    a, b, c = cards
    rule = Rule(Impairment(loss=1), sources=["a"], targets=["b"])
    with switch.under(rule):
        a.send(ALL, A, b"one")
        assert c.hear() == b"one"
        assert b.hear(0.2) is None
        b.send(A, B, b"back")
        assert a.hear() == b"back"
    a.send(B, A, b"two")
    assert b.hear() == b"two"
    assert (rule.met, rule.touched) == (1, 1)


def test_delayed_frames_come_late_and_in_order(
    switch: Switch, cards: tuple[Card, Card, Card]
) -> None:
    a, b, _ = cards
    with switch.under(Rule(Impairment(delay_s=0.2), sources=None, targets=None)):
        began_s = time.monotonic()
        for number in range(20):
            a.send(B, A, b"%d" % number)
        heard = [b.hear() for _ in range(20)]
    assert time.monotonic() - began_s >= 0.2
    assert heard == [b"%d" % number for number in range(20)]


def test_rules_add_up(switch: Switch, cards: tuple[Card, Card, Card]) -> None:
    a, b, _ = cards
    doubled = Rule(Impairment(duplication=1), sources=None, targets=None)
    late = Rule(Impairment(delay_s=0.1), sources=["a"], targets=None)
    with switch.under(doubled), switch.under(late):
        began_s = time.monotonic()
        a.send(B, A, b"x")
        assert [b.hear(), b.hear()] == [b"x", b"x"]
        assert time.monotonic() - began_s >= 0.1


def test_an_answer_is_awaited(switch: Switch, cards: tuple[Card, Card, Card]) -> None:
    a, b, _ = cards
    question = B + A + b"\x08\x00ask"
    assert switch.round_trip_s("a", "b", question, lambda _: True, limit_s=0.1) is None
    assert b.hear() == b"ask"
    a.hear(0.01)
    with switch.under(Rule(Impairment(delay_s=0.2), sources=["b"], targets=None)):
        b.send(A, B, b"answer")
        trip_s = switch.round_trip_s(
            "a", "b", question, lambda frame: frame.endswith(b"answer"), limit_s=5
        )
    assert trip_s is not None and trip_s > 0.1


def test_a_card_may_come_back(switch: Switch, cards: tuple[Card, Card, Card]) -> None:
    a, b, _ = cards
    b.wire.close()
    again = Card(b.path)
    again.send(ALL, B, b"again")
    assert a.hear() == b"again"
    a.send(B, A, b"welcome")
    assert again.hear() == b"welcome"
    again.wire.close()


def test_a_guest_that_takes_nothing_holds_up_nobody(
    switch: Switch, cards: tuple[Card, Card, Card]
) -> None:
    a, _, c = cards
    for _ in range(4000):
        a.send(B, A, b"x" * 1400)
    a.send(C, A, b"still here")
    assert c.hear() == b"still here"


def test_what_was_sent_can_be_read_as_pcap(
    cards: tuple[Card, Card, Card], capture: Capture, tmp_path: Path
) -> None:
    a, b, _ = cards
    sent = a.send(B, A, b"kept")
    b.hear()
    content = capture.write(tmp_path / "x.pcap").read_bytes()
    magic, major, minor, _, _, _, kind = struct.unpack_from("=IHHiIII", content)
    assert (magic, major, minor, kind) == (0xA1B23C4D, 2, 4, 1)
    at, frames = 24, []
    while at < len(content):
        seconds, nanoseconds, kept, whole = struct.unpack_from("=IIII", content, at)
        assert kept == whole and nanoseconds < 10**9 and abs(seconds - time.time()) < 600
        frames.append(content[at + 16 : at + 16 + kept])
        at += 16 + kept
    assert len(frames) == 4 and frames[-1] == sent


def test_a_capture_keeps_the_end() -> None:
    capture = Capture(most_bytes=100)
    for number in range(10):
        capture.add(bytes([number]) * 30)
    assert len(capture) == 3
    assert capture.to_bytes().endswith(b"\x09" * 30)


def test_the_kernel_tells_the_vlan_beside_the_frame() -> None:
    frame = B + A + b"\x08\x00x"
    auxiliary = struct.pack("=IIIHHHH", 0x10 | 0x40, 0, 0, 0, 0, 5, 0x8100)
    assert restored_tag(frame, auxiliary) == B + A + b"\x81\x00\x00\x05\x08\x00x"
    assert restored_tag(frame, struct.pack("=IIIHHHH", 0, 0, 0, 0, 0, 0, 0)) == frame
