"""A testinfra backend over the root command channel of a machine."""

from __future__ import annotations

from typing import Any

from testinfra.backend.base import BaseBackend, CommandResult

from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.command import DEFAULT_COMMAND_TIMEOUT_S, Transport
from pytest_nixos.machine.user_session import UserSession

__all__ = ["NixosBackend"]


class NixosBackend(BaseBackend):
    """Run testinfra's commands in a guest.

    :param hostname: name that test ids show (``nixos://name``).
    :param source: machine, one of its users, or bare transport; a machine's transport is asked for
        at each command, so it may change.
    :param timeout_s: seconds that a command may take unless it says otherwise; two minutes of an
        idle machine without it.
    """

    NAME = "nixos"

    def __init__(
        self,
        hostname: str,
        *,
        source: Machine | UserSession | Transport,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(hostname)
        self._source = source
        self._timeout_s = timeout_s

    @property
    def epoch(self) -> int:
        """Changes whenever what was observed before no longer holds; always 0 on a bare
        transport.
        """
        return self._source.epoch if isinstance(self._source, Machine | UserSession) else 0

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:
        """Run `command` as root or the user, ``%s`` replaced by `args`, quoted.

        :param timeout_s: keyword: seconds that this command may take.
        :param stdin: keyword: bytes for its standard input.
        :raises CommandTimeout: if it takes longer; it is killed and the channel stays usable.
        :raises TransportError: if the guest is gone.
        """
        timeout_s: float | None = kwargs.pop("timeout_s", self._timeout_s)
        stdin: bytes = kwargs.pop("stdin", b"")
        if kwargs:
            raise TypeError(f"run() knows timeout_s and stdin, not {', '.join(sorted(kwargs))}")
        line = self.get_command(command, *args)
        source = self._source
        transport = source.transport if isinstance(source, Machine | UserSession) else source
        done = transport.run(line, deadline=self._deadline(timeout_s), stdin=stdin)
        return self.result(done.exit_status, self.encode(line), done.stdout, done.stderr)

    def _deadline(self, timeout_s: float | None) -> Deadline:
        if timeout_s is not None:
            return Deadline.after(timeout_s)
        source = self._source
        if isinstance(source, Machine | UserSession):
            return source.deadline(DEFAULT_COMMAND_TIMEOUT_S)
        return Deadline.after(DEFAULT_COMMAND_TIMEOUT_S)

    def get_sudo_command(self, command: str, sudo_user: str | None) -> str:
        """Return a command line that runs `command` as `sudo_user`.

        Root's channel needs no sudo, which a NixOS host need not have; setpriv(1) is in every
        system. A user has what sudo allows them.
        """
        if isinstance(self._source, UserSession):
            return str(super().get_sudo_command(command, sudo_user))
        if sudo_user is None or sudo_user == "root":
            return self.quote("/bin/sh -c %s", command)
        user = sudo_user
        return self.quote(
            'env USER=%s LOGNAME=%s HOME="$(getent passwd %s | cut -d: -f6)"'
            ' setpriv --reuid=%s --regid="$(id -g %s)" --init-groups -- /bin/sh -c %s',
            *(user, user, user, user, user, command),
        )

    def get_encoding(self) -> str:
        """Return UTF-8; testinfra would look for a Python in the guest."""
        return "UTF-8"

    def decode(self, data: bytes) -> str:
        """Decode guest output; bytes that are no UTF-8 are replaced, never an error."""
        return data.decode(errors="replace")
