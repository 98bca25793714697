"""Where the surroundings of a container wait for its disk, which is made while they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pytest_nixos.errors import MachineError

__all__ = ["Gate"]


class Gate:
    """A named pipe of which each start of the container reads one line; a context manager that removes it.

    :param path: where it is made.
    :raises MachineError: if it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            os.mkfifo(path, mode=0o600)
            # For both ways: what is written before anybody reads stays.
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as err:
            raise MachineError(
                f"{path}: the container's gate cannot be made: {err.strerror or err}",
                remedy="free some space there, or set TMPDIR to a directory with room",
            ) from err

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._descriptor)
        self._path.unlink(missing_ok=True)

    def let_pass(self) -> None:
        """Let one start go on, at once or when it comes."""
        os.write(self._descriptor, b"\n")
