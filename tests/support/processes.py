"""What runs on this machine, which other tests and other people use too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["Process", "processes", "processes_with"]


class Process:
    """A process as ``/proc`` showed it.

    :param pid: its number.
    :param words: its command line.
    """

    def __init__(self, pid: int, words: tuple[str, ...]) -> None:
        self.pid = pid
        self.words = words

    @property
    def line(self) -> str:
        return " ".join(self.words)


def processes() -> Iterator[Process]:
    """Yield those that run; what ends meanwhile is left out."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            raw = (directory / "cmdline").read_bytes()
        except OSError:
            continue
        words = raw.decode(errors="replace").rstrip("\0").split("\0")
        yield Process(int(directory.name), tuple(words))


def processes_with(variable: str) -> Iterator[Process]:
    """Yield those that have ``NAME=value`` in their environment, as all have that such a one
    started.
    """
    for process in processes():
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        except OSError:
            continue
        if variable.encode() in environment.split(b"\0"):
            yield process
