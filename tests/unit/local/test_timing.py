"""Deadlines follow the time that passes, whatever somebody does to the clock."""

from __future__ import annotations

import threading
import time

import pytest

from pytest_nixos.local.timing import Deadline, Recall, Recalled, poll


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


def test_a_wait_is_recalled_from_another_thread() -> None:
    recall = Recall()
    deadline = Deadline.after(60, recall=recall).within(50)
    assert 0 < deadline.patience_s <= 1 and not deadline.expired
    threading.Timer(0.1, recall.give).start()
    started_s = time.monotonic()
    with pytest.raises(Recalled):
        poll(lambda: None, deadline=deadline, interval_s=0.02)
    assert time.monotonic() - started_s < 10


def test_what_nobody_recalls_waits_for_as_long_as_it_may() -> None:
    assert Deadline.after(60).patience_s > 50
