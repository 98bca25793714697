"""Python's collector of garbage, spared what a run keeps until its end."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["kept_until_the_end"]


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
