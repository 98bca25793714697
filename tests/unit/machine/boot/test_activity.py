"""What a guest's counters say of its work."""

from __future__ import annotations

import time

import pytest

from pytest_nixos.machine.boot.activity import Activity, Stillness

TEXT = """own usage_usec 400
cpu  100 5 50 800 20 3 2 0 0 0
   8       0 sda 10 0 2000 0 5 0 1000 0 0 0 0
   7       0 loop0 10 0 9999 0 5 0 9999 0 0 0 0
 254       0 zram0 10 0 9999 0 5 0 9999 0 0 0 0
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs
    lo:  777 1 0 0 0 0 0 0 777 1 0 0 0 0 0 0
  eth0:  1000 1 0 0 0 0 0 0 500 1 0 0 0 0 0 0
"""


def test_counters_are_read() -> None:
    assert Activity.parse(TEXT) == Activity(
        idle_us=8_000_400, all_us=9_800_000, moved_bytes=3000 * 512 + 1500
    )


def test_a_container_is_its_control_group() -> None:
    text = """own usage_usec 1000
up 100.50 3.00
usage_usec 2000000
some avg10=0.00 avg60=0.00 avg300=0.00 total=500000
Inter-|   Receive
    lo:  777 1 0 0 0 0 0 0 777 1
"""
    found = Activity.parse(text)
    assert found == Activity(idle_us=98_001_000, all_us=100_500_000, moved_bytes=0)


@pytest.mark.parametrize("text", ["", "cpu", "cpu a b c", "head: cannot open", "\x1b[2J\n" * 10])
def test_nonsense_is_not_known(text: str) -> None:
    assert Activity.parse(text) is None


def later(before: Activity, *, idle: int, ticks: int, moved: int = 0) -> Activity:
    return Activity(
        idle_us=before.idle_us + idle,
        all_us=before.all_us + ticks,
        moved_bytes=before.moved_bytes + moved,
    )


@pytest.mark.parametrize(
    ("idle", "moved", "still"),
    [(950, 0, True), (700, 0, False), (950, 10 << 20, False), (950, 50_000, True)],
    ids=["idle", "works", "moves data", "writes its journal"],
)
def test_stillness(idle: int, moved: int, *, still: bool) -> None:
    before = Activity(idle_us=1, all_us=10, moved_bytes=5)
    assert before.is_still(later(before, idle=idle, ticks=1000, moved=moved), span_s=10) is still


def test_counters_that_stand_or_run_backwards_say_nothing() -> None:
    before = Activity(idle_us=100, all_us=1000, moved_bytes=0)
    assert not before.is_still(before, span_s=10)
    assert not before.is_still(later(before, idle=-50, ticks=-100), span_s=10)


def test_seconds_count_from_the_last_work(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stillness, at = Stillness(), Activity(idle_us=0, all_us=0, moved_bytes=0)

    def look(*, idle: int) -> float:
        nonlocal at
        now[0] += 10
        at = later(at, idle=idle, ticks=1000)
        return stillness.seconds(at)

    assert [look(idle=idle) for idle in (0, 990, 990, 100, 990)] == [0, 10, 20, 0, 10]
    assert stillness.seconds(None) == 0
    assert [look(idle=990), look(idle=990)] == [0, 10]
