"""A user who logs in on a terminal, through the host's own login program and PAM, with a password of
the run.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pexpect
from pexpect.spawnbase import SpawnBase

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import LoginRefused, MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import Transport
from pytest_nixos.machine.login.asked import AskedMachine
from pytest_nixos.machine.login.lend import lent_file
from pytest_nixos.machine.terminal import GuestTerminal

__all__ = ["LoginTerminal", "password_login"]

_SHADOW = "/etc/shadow"
_ASK_S = 60.0
_LOGIN_S = 60.0
_SHELL_S = 60.0
_WAIT_S = 0.1
# The method's own default (crypt(5)): an emulated guest needs seconds for what passlib takes, and a
# password of the run has 96 random bits.
_ROUNDS = 5000
# What a getty starts is the host's to choose: services.getty.loginProgram stands in its units.
_LOGIN = r"""
login=
for unit in getty@tty1.service serial-getty@ttyS0.service console-getty.service; do
  [[ $(systemctl show --property=ExecStart "$unit") =~ --login-program[\ =]([^ ;]+) ]] &&
    login=${BASH_REMATCH[1]} && break
done
[ -x "$login" ] || login=$(type -P login) || exit 3
printf '%s\n' "$login"
"""
_PASSWORD = re.compile(rb"[Pp]assword:\s*$")
_REFUSALS = re.compile(
    rb"Login incorrect|Authentication failure|Permission denied|has expired|is locked|"
    rb"[Cc]annot (?:make|open)|not currently available|nologin"
)
# A locked entry stays one, and an empty one too: the password is not what keeps those out, or lets
# them in. No hash leaves the guest.
_WITH_HASH = r"""
new=$(cat)
while IFS= read -r line; do
  name=${line%%:*} rest=${line#*:}
  field=${rest%%:*} rest=${rest#*:}
  if [ "$name" = "$user" ] && [ -n "$field" ]; then
    lock=
    case $field in '!'*|'*'*) lock='!';; esac
    printf '%s:%s:%s\n' "$name" "$lock$new" "$rest"
  else
    printf '%s\n' "$line"
  fi
done <"$path" """
# Whose processes a terminal has, by the programs that they run; -ef compares files without a program
# for each process.
_PROGRAMS = r"""
user=$(id -u -- {user}) || exit
for process in /proc/[0-9]*; do
  [ "$process/fd/0" -ef {tty} ] || continue
  [ "$(stat -c %u "$process")" = "$user" ] && readlink "$process/exe"
done
true
"""


if TYPE_CHECKING:
    _Spawn = SpawnBase[bytes]
else:  # it takes no parameter but in its stubs
    _Spawn = SpawnBase


class LoginTerminal(_Spawn):
    """A terminal on which somebody logs in; what pexpect's ``spawn`` offers to expect and send.

    :param terminal: the guest's.
    :param name: user and host, as in ``alice@web``.
    :param password: the user's for as long as the context.
    """

    #: program that the login started, once it is there
    shell: str = ""

    def __init__(self, terminal: GuestTerminal, name: str, password: str) -> None:
        super().__init__(timeout=_LOGIN_S, encoding=None)
        self.name = name
        self.password = password
        self.closed = False
        self._terminal = terminal
        self._came = b""

    def read_nonblocking(self, size: int = 1, timeout: float | None = None) -> bytes:
        """Return what was printed, at most `size` bytes; see pexpect."""
        until_s = time.monotonic() + (_LOGIN_S if timeout is None or timeout < 0 else timeout)
        while not self._came:
            printed = self._terminal.exchange()
            if printed is None:
                self.flag_eof = True
                raise pexpect.EOF(f"{self.name}: the session has ended")
            self._came = printed
            if not printed:
                if time.monotonic() >= until_s:
                    raise pexpect.TIMEOUT(f"{self.name}: nothing was printed")
                time.sleep(_WAIT_S)
        came, self._came = self._came[:size], self._came[size:]
        return came

    def send(self, text: str | bytes) -> int:
        """Type `text`."""
        typed = text.encode() if isinstance(text, str) else text
        self._came += self._terminal.exchange(typed) or b""
        return len(typed)

    def sendline(self, text: str | bytes = "") -> int:
        """Type `text` and press Enter."""
        return self.send(text) + self.send(b"\r")

    def run(self, command: str, *, timeout_s: float = _SHELL_S) -> str:
        """Type `command` at the shell's prompt and return what was printed until it ended; the shell
        has to know ``;``, ``echo`` and quotes, as bash, zsh and fish do.

        :raises pexpect.TIMEOUT: if it does not end by then.
        """
        first, second = secrets.token_hex(8), secrets.token_hex(8)
        # What is typed is echoed: the mark is put together by the shell alone.
        self.sendline(f"echo {first}''{second}; {command}; echo {second}''{first}")
        self.expect_exact(f"{first}{second}".encode(), timeout=timeout_s)
        self.expect_exact(f"{second}{first}".encode(), timeout=timeout_s)
        return bytes(self.before or b"").decode(errors="replace").replace("\r\n", "\n").lstrip("\n")


@contextlib.contextmanager
def password_login(machine: AskedMachine, user: str) -> Iterator[LoginTerminal]:
    """Log a user in on a terminal of the guest, with a password of the run in the place of their own.

    :raises LoginRefused: if the login program does not let the user in: an account that is locked,
        has expired or has no password.
    :raises MachineError: if the machine is a live host, has no such user, or no login program.
    """
    if machine.backend.name is BackendName.SSH:
        raise MachineError(
            f"{machine.name}: a live host's passwords are left alone",
            remedy="run the host as a VM or a container",
        )
    transport, name = machine.transport, f"{user}@{machine.name}"
    login = _login_program(machine, user)
    password = secrets.token_urlsafe(12)
    with (
        lent_file(
            transport,
            _SHADOW,
            _hash(password),
            owner="root",
            make=f"user={shlex.quote(user)}\n{_WITH_HASH}",
        ),
        GuestTerminal(transport, command=f"exec {login} -- {shlex.quote(user)}") as guest,
    ):
        terminal = LoginTerminal(guest, name, password)
        deadline = machine.deadline(_LOGIN_S)
        _answer(terminal, password, deadline)
        terminal.shell = _wait_for_shell(terminal, transport, user, guest.tty, deadline)
        yield terminal


def _login_program(machine: AskedMachine, user: str) -> str:
    ask = f"getent shadow -- {shlex.quote(user)} >/dev/null || exit 4\n{_LOGIN}"
    asked = machine.transport.run(ask, deadline=Deadline.after(_ASK_S))
    if asked.exit_status == 4:
        raise MachineError(
            f"{user}@{machine.name}: the guest has no such user with a password of its own",
            remedy="declare users.users.NAME; who comes from a directory (LDAP) has none here",
        )
    if not asked.succeeded:
        raise MachineError(
            f"{machine.name}: the guest has no login program",
            remedy="the getty's is meant: services.getty.loginProgram",
        )
    return shlex.quote(asked.stdout_text.strip())


def _hash(password: str) -> bytes:
    from passlib.hash import sha512_crypt

    method = sha512_crypt.using(rounds=_ROUNDS)  # type: ignore[no-untyped-call] # not in its stubs
    return str(method.hash(password)).encode()


def _answer(terminal: LoginTerminal, password: str, deadline: Deadline) -> None:
    """Give the password, where it is asked for."""
    try:
        asked = terminal.expect([_PASSWORD, _REFUSALS, rb"[$#>%] $"], timeout=deadline.remaining_s)
    except pexpect.TIMEOUT as err:
        raise _undecided(terminal) from err
    except pexpect.EOF as err:
        raise _refused(terminal) from err
    if asked == 1:
        raise _refused(terminal)
    if asked == 0:
        terminal.sendline(password)


def _wait_for_shell(
    terminal: LoginTerminal, transport: Transport, user: str, tty: str, deadline: Deadline
) -> str:
    """Return the program that the login started."""
    ask = _PROGRAMS.format(user=shlex.quote(user), tty=shlex.quote(tty))
    while True:
        found = transport.run(ask, deadline=Deadline.after(_ASK_S)).stdout_text.split()
        if found:
            return found[0]
        try:
            terminal.expect(_REFUSALS, timeout=_WAIT_S)
        except pexpect.TIMEOUT:
            if deadline.expired:
                raise _undecided(terminal) from None
        except pexpect.EOF as err:
            raise _refused(terminal) from err
        else:
            raise _refused(terminal)


def _undecided(terminal: LoginTerminal) -> MachineError:
    """Neither a shell nor a refusal: it may wait for a code, a device or a directory."""
    return MachineError(
        f"{terminal.name}: no login on a terminal in time: {_said(terminal)}",
        remedy="raise --nixos-boot-timeout where the machine is slow, or look at what the login program asks for",
    )


def _refused(terminal: LoginTerminal) -> LoginRefused:
    return LoginRefused(
        f"{terminal.name}: no login on a terminal: {_said(terminal)}",
        remedy="journalctl --identifier=login in the guest says why (an account that is locked, has expired or"
        " has no password)",
    )


def _said(terminal: LoginTerminal) -> str:
    """Return the last line that was printed."""
    printed = bytes(terminal.before or b"") if isinstance(terminal.before, bytes) else b""
    after = terminal.after if isinstance(terminal.after, bytes) else b""
    lines = (printed + after).decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing is said")[:200]
