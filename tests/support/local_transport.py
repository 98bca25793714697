"""A transport whose guest is this machine."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import CommandResult

__all__ = ["LocalTransport"]


class LocalTransport:
    """Runs a guest's commands by this machine's bash.

    :param env: variables added to this process's environment.
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._env = env

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        done = SubprocessRunner().run(
            ["bash", "-c", command], deadline=deadline, stdin=stdin, env=self._env
        )
        return CommandResult(
            command=command,
            exit_status=done.exit_status,
            stdout=done.stdout,
            stderr=done.stderr,
            duration_s=0.0,
        )

    def close(self) -> None:
        """Nothing is open."""
