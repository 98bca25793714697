"""A user who logs in by ssh from outside, through the host's own sshd, with a key of the run."""

from __future__ import annotations

import contextlib
import re
import shlex
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_nixos.errors import LoginRefused, MachineError
from pytest_nixos.local.process import Completed, ProcessTimeout, SubprocessRunner, find_tool
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.capabilities import Way
from pytest_nixos.machine.command import CommandResult, Transport, short
from pytest_nixos.machine.login.keys import new_key
from pytest_nixos.machine.login.lend import lent_file
from pytest_nixos.machine.login.sshd import DECLARED_KEYS, FIND_SSHD, InForce

__all__ = ["SshUser", "key_lent", "sshd_in_force"]

_ASK_S = 60.0
# A second apart (ssh_config(5)): an sshd of Type=simple that has started may not listen yet.
_ATTEMPTS = 20
_PERSON = "getent passwd -- {user} || exit 4\n"
_READ = "[ ! -e {path} ] || cat -- {path}"
_ENTERED = "Authenticated to "
_DENIED = re.compile(r"Permission denied \(([^)]*)\)|Too many authentication failures")
_SSH_ERROR = 255
# The first connections to a socket-activated sshd make its host keys; one that comes meanwhile is closed.
_UNGREETED = re.compile(r"^kex_exchange_identification: .*(?:closed|reset)", re.MULTILINE)
_UNGREETED_S = 20.0
_UNGREETED_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SshUser:
    """Somebody who can be logged in as from outside; made by
    :meth:`pytest_nixos.machine.base.Machine.ssh_login`.

    :param name: user and host, as in ``alice@web``.
    :param way: how a client gets to the machine's sshd.
    :param key: the private key.
    :param ssh: the client.
    :param in_force: what sshd has in force for the user.
    """

    name: str
    user: str
    way: Way
    key: Path
    ssh: str
    in_force: InForce

    def run(self, command: str, *, timeout_s: float = 120.0, stdin: bytes = b"") -> CommandResult:
        """Log in and run `command` by the user's own shell, without a terminal.

        :param timeout_s: seconds for the login and the command.
        :raises LoginRefused: if sshd does not let the user in.
        :raises MachineError: if sshd is not reached, or no client of this machine speaks what it
            demands: nothing is known of the login then.
        """
        deadline = Deadline.after(timeout_s)
        patience = deadline.within(_UNGREETED_S)
        while True:
            done, said = self._try(command, deadline, stdin)
            if patience.expired or not _UNGREETED.search(said):
                break
            time.sleep(min(_UNGREETED_PAUSE_S, patience.remaining_s))
        self._demand_entry(said, done.exit_status)
        return CommandResult(
            command=command,
            exit_status=done.exit_status,
            stdout=done.stdout,
            stderr=done.stderr,
            duration_s=0.0,
        )

    def _try(self, command: str, deadline: Deadline, stdin: bytes) -> tuple[Completed, str]:
        """Return how ssh ended, and what it said of the connection."""
        log = self.key.with_name("log")
        log.unlink(missing_ok=True)
        argv = (*self.way.prefix, self.ssh, *self._options(log), "--", self.way.host, command)
        try:
            done = SubprocessRunner().run(argv, deadline=deadline, stdin=stdin)
        except ProcessTimeout as err:
            raise MachineError(
                f"{short(command)}: as {self.name} by ssh, still running after {deadline.limit_s:g} s",
                remedy="raise timeout_s",
            ) from err
        return done, log.read_text(errors="replace") if log.exists() else ""

    def _options(self, log: Path) -> Iterator[str]:
        yield from ("-F", "none", "-T", "-a", "-x", "-E", str(log), "-i", str(self.key))
        yield from ("-p", str(self.way.port), "-l", self.user)
        for option in (
            "BatchMode=yes",
            "ConnectTimeout=60",
            f"ConnectionAttempts={_ATTEMPTS}",
            "GlobalKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "LogLevel=VERBOSE",
            "PreferredAuthentications=publickey",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
        ):
            yield from ("-o", option)

    def _demand_entry(self, said: str, exit_status: int) -> None:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        if any(line.startswith(_ENTERED) for line in lines):
            if exit_status == _SSH_ERROR and any("closed by remote host" in line for line in lines):
                raise LoginRefused(
                    f"{self.name}: the key is accepted, and sshd closes the connection: {lines[-1]}",
                    remedy="PAM opens no session: journalctl --unit=sshd in the guest says why",
                )
            return
        denied = next((line for line in lines if _DENIED.search(line)), "")
        if denied:
            raise LoginRefused(
                f"{self.name}: sshd does not let the user in: {denied}",
                remedy="journalctl --unit=sshd in the guest says why (AllowUsers, PermitRootLogin, an account"
                " that has expired, a shell that is not there)",
            )
        raise MachineError(
            f"{self.name}: no login was tried: {lines[-1] if lines else 'ssh said nothing'}",
            remedy="look whether the firewall opens sshd's port, and which algorithms it demands",
        )


def sshd_in_force(transport: Transport, user: str, *, address: str, deadline: Deadline) -> InForce:
    """Ask which settings sshd has in force for a user.

    :param address: from where the user comes.
    :raises MachineError: if the guest has no such user, or no sshd.
    """
    name = shlex.quote(user)
    asked = transport.run(
        f"{_PERSON.format(user=name)}{FIND_SSHD}\nask {name} {address}",
        deadline=deadline.within(_ASK_S),
    )
    if asked.exit_status == 4:
        raise MachineError(
            f"{user}: the guest has no such user",
            remedy="declare users.users.NAME, or read the guest's names: getent passwd",
        )
    if not asked.succeeded:
        raise MachineError(
            f"{user}: sshd does not tell its settings: {asked.stderr_text.strip() or 'there is none'}",
            remedy="declare services.openssh.enable = true;",
        )
    person, _, settings = asked.stdout_text.partition("\n")
    _, _, uid, _, _, home, *_ = (*person.split(":"), *[""] * 7)
    return InForce.parse(settings, user=user, uid=uid, home=home)


@contextlib.contextmanager
def key_lent(
    transport: Transport, user: str, *, in_force: InForce, way: Way, machine: str
) -> Iterator[SshUser]:
    """Add a new key to those that sshd accepts for a user, until the context ends.

    The key is in one of the files that sshd reads for that user, beside what stands there: that of
    the declared keys where it has some.

    :param in_force: what sshd has in force for the user.
    :param machine: its name.
    :raises LoginRefused: if sshd reads no file for the user.
    :raises MachineError: if it cannot be lent.
    """
    if not in_force.key_files:
        raise LoginRefused(
            f"{user}@{machine}: sshd reads no file of keys for the user",
            remedy="services.openssh.authorizedKeysFiles says which it reads",
        )
    ssh = find_tool("ssh", remedy="install OpenSSH's client (openssh-client)")
    private, public = new_key(in_force.key_types)
    path = _file(transport, in_force)
    present = transport.run(
        _READ.format(path=shlex.quote(path)), deadline=Deadline.after(_ASK_S)
    ).stdout
    content = present.rstrip(b"\n") + b"\n" + public if present else public
    owner = user if not path.startswith("/etc/") else "root"
    with (
        tempfile.TemporaryDirectory(prefix="pytest-nixos-key-") as directory,
        lent_file(transport, path, content, owner=owner),
    ):
        key = Path(directory) / "key"
        key.touch(mode=0o600)
        key.write_bytes(private)
        yield SshUser(
            name=f"{user}@{machine}", user=user, way=way, key=key, ssh=ssh, in_force=in_force
        )


def _file(transport: Transport, in_force: InForce) -> str:
    """Choose the file: that of the declared keys, else one that is there, else the first."""
    files = sorted(in_force.key_files, key=lambda file: not file.startswith(DECLARED_KEYS))
    looks = " ".join(shlex.quote(file) for file in files)
    there = transport.run(
        f'for file in {looks}; do [ ! -e "$file" ] || printf "%s\\n" "$file"; done',
        deadline=Deadline.after(_ASK_S),
    ).stdout_text.splitlines()
    return there[0] if there else files[0]
