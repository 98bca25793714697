"""What stays until the end is no work for the collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from pytest_nixos.local.garbage import kept_until_the_end, seldom_collected


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    on, threshold = gc.isenabled(), gc.get_threshold()
    gc.unfreeze()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()
    (gc.enable if on else gc.disable)()


def test_what_is_made_within_is_left_alone_afterwards() -> None:
    gc.enable()
    with kept_until_the_end():
        assert not gc.isenabled()
        made = [[number] for number in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() > len(made)


def test_it_is_on_again_after_an_error() -> None:
    gc.enable()
    with pytest.raises(ValueError, match="wrong"), kept_until_the_end():
        raise ValueError("wrong")
    assert gc.isenabled()


def test_who_turned_it_off_keeps_it_off() -> None:
    gc.disable()
    with kept_until_the_end():
        pass
    assert not gc.isenabled()


def test_it_begins_seldom_until_an_error_too() -> None:
    gc.set_threshold(700, 10, 10)
    seen: list[int] = []

    def fail() -> None:
        seen.append(gc.get_threshold()[0])
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"), seldom_collected():
        fail()
    assert seen[0] > 2000
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("first", [0, 100_000])
def test_who_wants_it_more_seldom_keeps_that(first: int) -> None:
    gc.set_threshold(first, 10, 10)
    with seldom_collected():
        assert gc.get_threshold()[0] == first
