"""Deadlines follow the time that passes, whatever somebody does to the clock."""

from __future__ import annotations

import time

import pytest

from pytest_nixos.local.timing import Deadline, poll


@pytest.mark.parametrize("jump_s", [-(10.0**9), 10.0**9])
def test_a_clock_that_is_set_moves_no_deadline(
    jump_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    deadline = Deadline.after(0.2)
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    assert not deadline.expired
    assert 0 < deadline.remaining_s <= 0.2
    started_s = time.monotonic()
    assert poll(lambda: None, deadline=deadline, interval_s=0.02) is None
    assert 0.1 < time.monotonic() - started_s < 5
    assert deadline.expired
