"""What befalls frames on their way."""

from __future__ import annotations

import random

import pytest

from pytest_nixos.errors import SettingsError
from pytest_nixos.machine.cluster.impairment import Flight, Impairment, Rule

FRAME = bytes(range(12)) + b"\x08\x00" + b"x" * 100


def after(impairment: Impairment, *frames: bytes, due_s: float = 0.0) -> list[Flight]:
    """Return what becomes of frames that are sent one after another."""
    rule = Rule(impairment, sources=None, targets=None, chance=random.Random(1))
    return [late for frame in frames for late in rule.befall(Flight(frame=frame, due_s=due_s))]


def test_nothing_happens_by_itself() -> None:
    assert after(Impairment(), FRAME) == [Flight(frame=FRAME, due_s=0.0)]


def test_a_share_is_lost() -> None:
    left = len(after(Impairment(loss=0.3), *[FRAME] * 1000))
    assert 600 < left < 800
    assert after(Impairment(loss=1), FRAME) == []


def test_a_share_comes_twice() -> None:
    assert len(after(Impairment(duplication=1), FRAME)) == 2
    assert 1200 < len(after(Impairment(duplication=0.3), *[FRAME] * 1000)) < 1400


def test_delay_keeps_order_and_jitter_too() -> None:
    found = [f.due_s for f in after(Impairment(delay_s=0.2, jitter_s=0.1), *[FRAME] * 50)]
    assert found == sorted(found)
    assert 0.1 <= found[0] <= found[-1] <= 0.3


def test_reordering_lets_others_pass() -> None:
    found = [f.due_s for f in after(Impairment(reordering=0.5, reorder_s=0.1), *[FRAME] * 50)]
    assert set(found) == {0.0, 0.1}


def test_one_bit_is_turned_behind_the_ethernet_header() -> None:
    for flight in after(Impairment(corruption=1), *[FRAME] * 50):
        assert flight.frame[:14] == FRAME[:14]
        turned = [a ^ b for a, b in zip(flight.frame, FRAME, strict=True) if a != b]
        assert len(turned) == 1 and turned[0].bit_count() == 1


def test_bandwidth_is_shared_by_what_follows() -> None:
    size = len(FRAME)
    found = [f.due_s for f in after(Impairment(kbit_s=size * 8 / 1000), *[FRAME] * 4)]
    # A frame a second: the third has to wait two, which is longer than a queue is.
    assert found == pytest.approx([1.0, 2.0])


def test_long_packets_vanish() -> None:
    tagged = FRAME[:12] + b"\x81\x00\x00\x05" + FRAME[12:]
    assert len(after(Impairment(longest_packet=100), FRAME, tagged)) == 2
    assert after(Impairment(longest_packet=99), FRAME, tagged) == []


def test_a_rule_counts_what_it_met_and_touched() -> None:
    rule = Rule(Impairment(loss=1), sources=["a"], targets=None)
    assert rule.applies("a", "b") and not rule.applies("b", "a")
    rule.befall(Flight(frame=FRAME, due_s=0.0))
    assert (rule.met, rule.touched) == (1, 1)
    harmless = Rule(Impairment(longest_packet=1500), sources=None, targets=["a"])
    harmless.befall(Flight(frame=FRAME, due_s=0.0))
    assert (harmless.met, harmless.touched) == (1, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss", 1.1),
        ("corruption", -0.1),
        ("delay_s", -1.0),
        ("kbit_s", 0.0),
        ("longest_packet", 0),
    ],
)
def test_what_cannot_be_is_refused(name: str, value: float) -> None:
    with pytest.raises(SettingsError):
        Impairment(**{name: value})  # type: ignore[arg-type]
