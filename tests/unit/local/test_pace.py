"""Limits grow with what this machine is measured to be, by one factor, and no more than
bearable.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from pytest_nixos.local.pace import Pace, Pacer, Pressure, PressureMark, measure_pace


@pytest.mark.parametrize(
    ("work_s", "least", "most"),
    [
        (0.0, 1, 1),
        (0.02, 1, 1),  # as planned; a little more is not worth a word
        (0.08, 3.5, 6),
        (0.25, 10, 10),  # above it, waiting would have no end
    ],
)
def test_the_factor_is_measured(work_s: float, least: float, most: float) -> None:
    pace = measure_pace(lambda: time.sleep(work_s))
    assert least <= pace.factor <= most
    assert pace.limit(30) == 30 * pace.factor


def test_a_machine_that_is_as_fast_as_planned_is_measured_once() -> None:
    calls: list[int] = []
    assert measure_pace(lambda: calls.append(1)) == Pace()
    assert calls == [1]


def test_a_slow_processor_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    at_s, calls = [0.0], []

    def work() -> None:
        calls.append(1)
        at_s[0] += 0.06

    for clock in ("perf_counter", "thread_time"):
        monkeypatch.setattr(time, clock, lambda: at_s[0])
    assert measure_pace(work) == Pace(factor=3.0)
    assert calls == [1]


def test_the_median_counts_not_one_slow_moment() -> None:
    times = iter([0.6, 0.0, 0.0])
    assert measure_pace(lambda: time.sleep(next(times))) == Pace()


def test_a_slow_machine_is_told_and_a_fast_one_is_not() -> None:
    assert Pace().words == ""
    assert "4 times slower than planned" in Pace(factor=4.0).words


def test_a_machine_that_becomes_slower_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    factors = iter([4.0, 1.0, 6.0])
    pacer = Pacer(Pace(factor=2.0), measure=lambda: Pace(factor=next(factors)))
    assert pacer.now().factor == 2
    now[0] += 59
    assert pacer.now().factor == 2
    now[0] += 2
    assert pacer.now().factor == 4
    assert pacer.now().factor == 4
    now[0] += 61
    # Who was busy at first may be so again.
    assert pacer.now().factor == 2
    assert pacer.renew().factor == 6


def test_a_pace_that_nobody_knows_is_measured_when_it_is_asked_for() -> None:
    asked = []
    pacer = Pacer(measure=lambda: asked.append(1) or Pace(factor=3.0))  # type: ignore[func-returns-value]
    assert not asked
    assert [pacer.now().factor, pacer.now().factor, len(asked)] == [3, 3, 1]


def test_this_machine_can_be_measured() -> None:
    assert 1 <= measure_pace().factor <= 10


def mark(root: Path, *, at_s: float, waited_us: int | None, steal: int, idle: int) -> PressureMark:
    (root / "stat").write_text(f"cpu  100 0 100 {idle} 0 0 0 {steal} 0 0\ncpu0 1\n")
    if waited_us is not None:
        (root / "pressure").mkdir(exist_ok=True)
        (root / "pressure/cpu").write_text(
            f"some avg10=98.82 avg60=98.38 avg300=92.86 total={waited_us}\nfull avg10=0.00 total=0\n"
        )
    return msgspec.structs.replace(PressureMark.now(root), at_s=at_s)


def test_shares_of_a_span(tmp_path: Path) -> None:
    before = mark(tmp_path, at_s=100, waited_us=5_000_000, steal=10, idle=1000)
    after = mark(tmp_path, at_s=110, waited_us=13_000_000, steal=60, idle=1150)
    found = before.until(after)
    assert found == Pressure(waited=0.8, stolen=0.25, span_s=10)
    assert found.words == (
        "this machine was busy: processes waited for a processor 80% of the time, "
        "25% of the processors' time went to other machines"
    )
    assert found.to_json() == {"waited": 0.8, "stolen": 0.25, "span_s": 10}


def test_a_calm_machine_has_nothing_to_say(tmp_path: Path) -> None:
    before = mark(tmp_path, at_s=100, waited_us=0, steal=0, idle=0)
    after = mark(tmp_path, at_s=110, waited_us=200_000, steal=1, idle=2000)
    assert before.until(after).words == ""


def test_a_kernel_that_does_not_tell(tmp_path: Path) -> None:
    before = mark(tmp_path, at_s=1, waited_us=None, steal=0, idle=0)
    assert before.until(before).waited is None
    nothing = PressureMark.now(tmp_path / "absent")
    assert nothing.until(nothing) == msgspec.structs.replace(
        nothing.until(nothing), waited=None, stolen=None
    )
    assert nothing.until(nothing).words == ""


def test_this_machine_has_counters() -> None:
    before = PressureMark.now()
    assert before.ticks is not None
    assert 0 <= (before.until(PressureMark.now()).stolen or 0) <= 1
