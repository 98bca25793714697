"""File locks that say at once whether they could be had, flock(2)."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

__all__ = ["hold_exclusive", "hold_shared", "lock_exclusive"]

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def hold_shared(stack: contextlib.ExitStack, path: Path) -> bool:
    """Lock a file together with others until `stack` ends; return whether that could be had at
    once.

    :param path: made where it is missing; never followed through a symbolic link.
    :raises OSError: if it cannot be opened.
    """
    return _hold(stack, path, fcntl.LOCK_SH)


def hold_exclusive(stack: contextlib.ExitStack, path: Path) -> bool:
    """Lock a file for this process alone until `stack` ends; return whether that could be had at
    once.

    :param path: made where it is missing; never followed through a symbolic link.
    :raises OSError: if it cannot be opened.
    """
    return _hold(stack, path, fcntl.LOCK_EX)


def lock_exclusive(descriptor: int) -> bool:
    """Lock an open file for this process alone; return whether that could be had at once."""
    return _lock(descriptor, fcntl.LOCK_EX)


def _hold(stack: contextlib.ExitStack, path: Path, kind: int) -> bool:
    descriptor = os.open(path, _FLAGS, 0o600)
    stack.callback(os.close, descriptor)
    return _lock(descriptor, kind)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
