"""Python's collector of garbage, spared what a run keeps until its end."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["kept_until_the_end", "seldom_collected"]

# Some Pythons begin after 700 new objects, others after 2000.
_NEW_OBJECTS = 5000


@contextmanager
def kept_until_the_end() -> Iterator[None]:
    """Make what stays for as long as the process: modules, the catalogue, pytest's items.

    The collector would walk through them again and again while they are made, and each time that
    pytest calls it in the end. It is off within the block, and after it leaves alone whatever there
    is then.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if on:
            gc.enable()


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Have the collector begin after more new objects than Python's own default.

    A run of many hosts makes findings and reports, which stay: each walk through all of them finds
    nothing. Whoever turned it off, or set it higher, keeps that.
    """
    first, *others = gc.get_threshold()
    gc.set_threshold(first and max(first, _NEW_OBJECTS), *others)
    try:
        yield
    finally:
        gc.set_threshold(first, *others)
