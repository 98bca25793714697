"""A service that only waited for another is told from one that starts over for ever."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from checks.boot import test_boot as boot
from pytest_nixos.observe.systemd.unit import UnitState


def state(active: str, restarts: int) -> UnitState:
    return UnitState(name="a", properties={"ActiveState": active, "NRestarts": str(restarts)})


@pytest.mark.parametrize(
    ("first", "later", "stays"),
    [
        (state("activating", 1), [state("active", 1), state("active", 1)], True),
        (
            state("activating", 1),
            [state("activating", 1), state("active", 2), state("active", 2)],
            True,
        ),
        (state("activating", 1), [state("active", 1), state("active", 2)], False),
        (state("activating", 1), [state("active", 1), state("activating", 1)], False),
        (state("activating", 1), [state("activating", 1)] * 20, False),
        (state("activating", 1), [state("failed", 1)] * 20, False),
        (state("active", 6), [state("active", 6)] * 20, False),
    ],
)
def test_who_stays_up_after_a_few_tries(
    first: UnitState, later: list[UnitState], stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    looks = iter(later)

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    def look(run: object, names: list[str]) -> Mapping[str, UnitState]:
        return dict.fromkeys(names, next(looks))

    monkeypatch.setattr(boot, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: clock[0]))
    monkeypatch.setattr(boot, "observe", SimpleNamespace(observe=look, units=list))
    machine = cast("Any", SimpleNamespace(run=None))
    assert boot._that_stay_up(machine, {"a": first}) == (["a"] if stays else [])
