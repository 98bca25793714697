"""A transport that looks for news of its machine after each command that failed."""

from __future__ import annotations

from collections.abc import Callable

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import CommandResult, Transport

__all__ = ["ToldTransport"]


class ToldTransport:
    """Pass commands on; look for news of the machine after each that failed.

    :param inner: the transport that does the work.
    :param look: tells what it finds.
    """

    def __init__(self, inner: Transport, look: Callable[[], None]) -> None:
        self.inner = inner
        self._look = look

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        """Run `command`; see :class:`Transport`."""
        try:
            result = self.inner.run(command, deadline=deadline, stdin=stdin)
        except TransportError:
            self._look()
            raise
        if not result.succeeded:
            self._look()
        return result

    def close(self) -> None:
        """Give up the channel."""
        self.inner.close()
