"""A runner of commands that runs none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pytest_nixos.local.process import Completed, LineSink
from pytest_nixos.local.timing import Deadline

__all__ = ["FakeRunner"]

Answer = Callable[[Sequence[str], LineSink | None], Completed]


class FakeRunner:
    """Answers every command as told, and keeps what was asked.

    :param answer: how each command ends, what it raises, or what decides by its words and the sink
        of standard error.
    """

    def __init__(self, answer: Completed | Exception | Answer) -> None:
        self._ending = answer
        self.calls: list[tuple[str, ...]] = []

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        on_stderr_line: LineSink | None = None,
    ) -> Completed:
        self.calls.append(tuple(argv))
        if isinstance(self._ending, Exception):
            raise self._ending
        if isinstance(self._ending, Completed):
            return self._ending
        return self._ending(argv, on_stderr_line)
