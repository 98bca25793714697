"""A guest as one of its users meets it after a login: their PAM session, their environment, their
own service manager.
"""

from __future__ import annotations

import math
import secrets
import shlex
from typing import Protocol

from msgspec.structs import replace

from pytest_nixos.errors import CommandTimeout, MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import (
    DEFAULT_COMMAND_TIMEOUT_S,
    CommandResult,
    Transport,
    short,
)

__all__ = ["UserSession", "UserTransport"]

# The service that login(1) asks PAM for; NixOS has it on every host
# (nixos/modules/security/pam.nix), with pam_systemd where the host has logind.
_PAM_SERVICE = "login"
# Words: the command, a mark that nobody knows, what bounds the command. What a user's own start files
# print or read is not the command's; that it was begun is told by a pipe, since they may end the
# shell. A unit has the manager's PATH, where NixOS has neither bash nor timeout(1).
_LOGIN_SHELL = r"""
command=$1 mark=$2; shift 2
exec {begun}<> <(:)
"$@" "$BASH" -l -c "exec <&7 >&8 2>&9 7<&- 8>&- 9>&-; echo >&$begun; exec $begun>&-
$command" 7<&0 8>&1 9>&2 </dev/null >/dev/null 2>&1
status=$?
read -r -t 0 -u "$begun" && printf '\n%s %d\n' "$mark" "$status" >&2
exit "$status"
"""
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

        :raises CommandTimeout: if it does not end by `deadline`; what left its process group, as by
            setsid(1), lives on.
        :raises MachineError: if it was not run: no session (an account that is locked or expired), or
            start files of the user that end the shell.
        """
        limit_s = deadline.remaining_s + _GRACE_S
        bound = "" if math.isinf(limit_s) else f"{_BOUND} {limit_s:.1f}"
        mark = f"--{secrets.token_hex(16)}"
        # systemd.service(5), "Command lines": in a unit a dollar sign is written twice.
        words = (
            word.replace("$", "$$")
            for word in (
                *("--uid", self._user, "--", "bash", "-c", _LOGIN_SHELL, "bash", command, mark),
            )
        )
        unit = f"--unit=pytest-nixos-session-{secrets.token_hex(8)}"
        line = f"{_SYSTEMD_RUN} {unit} {shlex.join(words)} {bound}"
        try:
            done = self._inner.run(line, deadline=deadline, stdin=stdin)
        except CommandTimeout as err:
            raise CommandTimeout(
                f"{short(command)}: of {self._user}, still running after {deadline.limit_s:g} s, killed",
                remedy=err.remedy,
                stdout=err.stdout,
                stderr=err.stderr,
            ) from err
        return self._result(command, done, mark.encode())

    def _result(self, command: str, done: CommandResult, mark: bytes) -> CommandResult:
        before, ended, after = done.stderr.rpartition(b"\n%b " % mark)
        status, _, rest = after.partition(b"\n")
        if not ended or not status.isdigit():
            said = done.stderr_text.strip().splitlines()
            raise MachineError(
                f"{short(command)}: was not run as {self._user}: "
                f"{said[-1] if said else f'exit status {done.exit_status}, and nothing was said'}",
                remedy="look at the account (locked, expired, PAM: journalctl --identifier=systemd) and at what"
                " its start files do (~/.bash_profile): they may end the shell",
            )
        return replace(done, command=command, exit_status=int(status), stderr=before + rest)

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
