"""A guest as one of its users meets it after a login: their PAM session, their environment, their
own service manager.
"""

from __future__ import annotations

import math
import shlex
from typing import Protocol

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import DEFAULT_COMMAND_TIMEOUT_S, CommandResult, Transport

__all__ = ["UserSession", "UserTransport"]

# The service that login(1) asks PAM for; NixOS has it on every host
# (nixos/modules/security/pam.nix), with pam_systemd where the host has logind.
_PAM_SERVICE = "login"
# An outer shell tells a death by signal as 128 + n, which systemd-run does not. It has the manager's
# PATH, where NixOS has neither bash nor timeout(1). Its words: the command, what bounds it.
_LOGIN_SHELL = 'command=$1; shift; "$@" "$BASH" -l -c "$command"; exit'
_SYSTEMD_RUN = (
    "systemd-run --quiet --collect --pipe --wait --service-type=exec"
    f" --property=PAMName={_PAM_SERVICE} --property=WorkingDirectory=-~"
)
# What the channel gives up on is not left to run: logind has taken it out of the service's group.
_GRACE_S = 1.0
_BOUND = f'"$(type -P timeout)" --kill-after={_GRACE_S}'


class _Rooted(Protocol):
    """What is asked of the machine."""

    epoch: int

    @property
    def name(self) -> str: ...

    @property
    def transport(self) -> Transport: ...

    def deadline(self, limit_s: float) -> Deadline: ...


class UserTransport:
    """Carries commands to a guest that run as one of its users.

    Each command is a service of the guest's manager with a PAM session of its own, as
    ``systemd-run --uid`` makes it (systemd-run(1), ``PAMName=`` in systemd.exec(5)). Its output
    goes to files of root, so it cannot open ``/dev/stdout`` by name.

    :param inner: carries root's commands.
    :param user: name of the user.
    """

    def __init__(self, inner: Transport, user: str) -> None:
        self._inner = inner
        self._user = user

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        """Run `command` with ``bash -l -c`` semantics as the user, in their home directory.

        :raises CommandTimeout: see :class:`~pytest_nixos.machine.command.Transport`.
        """
        limit_s = deadline.remaining_s + _GRACE_S
        bound = "" if math.isinf(limit_s) else f"{_BOUND} {limit_s:.1f}"
        # systemd.service(5), "Command lines": in a unit a dollar sign is written twice.
        words = (
            word.replace("$", "$$")
            for word in ("--uid", self._user, "--", "bash", "-c", _LOGIN_SHELL, "bash", command)
        )
        line = f"{_SYSTEMD_RUN} {shlex.join(words)} {bound}"
        return self._inner.run(line, deadline=deadline, stdin=stdin)

    def close(self) -> None:
        """Leave the channel to root: it is theirs."""


class UserSession:
    """One user of a machine; made by :meth:`pytest_nixos.machine.base.Machine.as_user`.

    :param machine: whose user it is.
    :param user: name of the user.
    :raises MachineError: if the machine has no such user.
    """

    def __init__(self, machine: _Rooted, user: str) -> None:
        self._machine = machine
        self.user = user
        limit = machine.deadline(DEFAULT_COMMAND_TIMEOUT_S)
        if machine.transport.run(f"id -u -- {shlex.quote(user)}", deadline=limit).exit_status != 0:
            raise MachineError(
                f"{machine.name}: has no user {user!r}",
                remedy="declare users.users.NAME, or read the guest's names: getent passwd",
            )

    @property
    def name(self) -> str:
        """User and host, as in ``alice@web``."""
        return f"{self.user}@{self._machine.name}"

    @property
    def epoch(self) -> int:
        """The machine's: see :class:`~pytest_nixos.machine.base.Machine`."""
        return self._machine.epoch

    @property
    def transport(self) -> UserTransport:
        """Carries the user's commands; may be another one after a reboot."""
        return UserTransport(self._machine.transport, self.user)

    def deadline(self, limit_s: float) -> Deadline:
        """Make a deadline at the machine's pace."""
        return self._machine.deadline(limit_s)

    def run(
        self, command: str, *, timeout_s: float | None = None, stdin: bytes = b""
    ) -> CommandResult:
        """Run `command` as the user, as after a login.

        :param timeout_s: seconds, as they are; two minutes of an idle machine without it.
        """
        limit = (
            self.deadline(DEFAULT_COMMAND_TIMEOUT_S)
            if timeout_s is None
            else Deadline.after(timeout_s)
        )
        return self.transport.run(command, deadline=limit, stdin=stdin)
