"""Limits grow with what this machine is measured to be, by one factor, and no more than bearable."""

from __future__ import annotations

import time

import pytest

from pytest_nixos.local.pace import Pace, measure_pace


@pytest.mark.parametrize(
    ("work_s", "least", "most"),
    [
        (0.0, 1, 1),
        (0.05, 1, 1),  # as planned; a little more is not worth a word
        (0.2, 3.5, 6),
        (0.6, 10, 10),  # above it, waiting would have no end
    ],
)
def test_the_factor_is_measured(work_s: float, least: float, most: float) -> None:
    pace = measure_pace(lambda: time.sleep(work_s))
    assert least <= pace.factor <= most
    assert pace.limit(30) == 30 * pace.factor


def test_the_median_counts_not_one_slow_moment() -> None:
    times = iter([0.6, 0.0, 0.0])
    assert measure_pace(lambda: time.sleep(next(times))) == Pace()


def test_a_slow_machine_is_told_and_a_fast_one_is_not() -> None:
    assert Pace().words == ""
    assert "4 times slower than planned" in Pace(factor=4.0).words


def test_this_machine_can_be_measured() -> None:
    assert 1 <= measure_pace().factor <= 10
