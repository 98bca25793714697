"""What stays until the end is no work for the collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from pytest_nixos.local.garbage import kept_until_the_end


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    on = gc.isenabled()
    gc.unfreeze()
    yield
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
