"""Copies of large files."""

from __future__ import annotations

import os
import shutil
from typing import IO

__all__ = ["copy_content"]

_MOST_AT_ONCE = 1 << 30
_CHUNK = 1 << 20


def copy_content(source: IO[bytes], target: IO[bytes]) -> None:
    """Copy a file that nothing has been read of into an empty one.

    The file system does it where it can (copy_file_range(2)): btrfs, XFS and bcachefs then share
    the blocks until one of the two is written.

    :raises OSError: if it cannot be read or written.
    """
    try:
        while os.copy_file_range(source.fileno(), target.fileno(), _MOST_AT_ONCE):
            pass
    except OSError:  # other file systems, or an old kernel: what is left by hand
        shutil.copyfileobj(source, target, _CHUNK)
