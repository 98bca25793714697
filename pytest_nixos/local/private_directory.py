"""Directories that only their owner may look into, whatever the umask says."""

from __future__ import annotations

from pathlib import Path

__all__ = ["private_directory"]


def private_directory(path: Path) -> None:
    """Make a directory and those above it that are missing, each with mode 0700; what is there stays as it is.

    :meth:`pathlib.Path.mkdir` gives parents the mode that the umask leaves: 0777 where that is 000, as in some containers.

    :raises OSError: if one cannot be made.
    """
    missing = [path]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)
