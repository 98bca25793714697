"""The ssh backend: a host that already runs, reached by OpenSSH and never changed."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from pytest_nixos.errors import BootError, MachineError, TransportError
from pytest_nixos.local.process import Runner, SubprocessRunner, find_tool
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.base import BackendName, MachineSpec
from pytest_nixos.machine.boot.events import BootEventKind, BootListener, ignore_boot_event
from pytest_nixos.machine.boot.news import BootNews
from pytest_nixos.machine.boot.remedies import Remedies
from pytest_nixos.machine.boot.settle import parse_properties
from pytest_nixos.machine.capabilities import PortState
from pytest_nixos.machine.command import Transport
from pytest_nixos.machine.lifetime import Lifetime
from pytest_nixos.machine.network.scan import scan_tcp
from pytest_nixos.machine.serial_process import SerialProcess
from pytest_nixos.machine.ssh.outside import ASK_ENDS, look_from_here, parse_ends
from pytest_nixos.machine.ssh.transport import SshTransport
from pytest_nixos.machine.survey import Survey, View

__all__ = ["SshBackend", "SshRunning", "client_argv", "master_argv"]

_TAIL = 20
_GRACE_S = 2.0
_NO_SSH = "install the OpenSSH client: apt install openssh-client (Debian, Ubuntu), openssh-clients (Fedora)"
_SHORT_S = 10.0
_INTERVAL_S = 0.05
_SUDO = ("sudo", "-n", "--")
_DESTINATION = re.compile(r"[^\s-][^\s]*")

_REMEDIES = Remedies(
    by_words=(
        (
            "Host key verification failed",
            "connect once by hand and compare the host's key, or add it to known_hosts",
        ),
        (
            "IDENTIFICATION HAS CHANGED",
            "find out why the host's key changed before you trust the new one",
        ),
        (
            "Permission denied",
            "make ssh work without a password: load the key into ssh-agent, or name it in ssh_config",
        ),
        ("Could not resolve", "check the address, or give the host a name in ssh_config"),
        ("Connection refused", "check that sshd runs on the host and on which port"),
    ),
    default="try the same ssh command by hand; it must connect without asking anything",
)


def master_argv(ssh: str, options: Sequence[str], socket_path: Path, address: str) -> list[str]:
    """Build the argv of the shared connection: a client of its own that runs no command.

    Who may connect, by which key, port or jump host, is left to the user's ssh_config(5).
    """
    return [
        ssh,
        *options,
        "-N",
        "-T",
        "-oControlMaster=yes",
        f"-oControlPath={_escape(socket_path)}",
        "-oControlPersist=no",
        "-oBatchMode=yes",
        "-oServerAliveInterval=15",
        "-oServerAliveCountMax=3",
        *_QUIET,
        "--",
        address,
    ]


def client_argv(ssh: str, options: Sequence[str], socket_path: Path, address: str) -> list[str]:
    """Build the argv, up to the destination, of a command over the shared connection and no
    other.
    """
    return [
        ssh,
        *options,
        "-T",
        "-oControlMaster=no",
        f"-oControlPath={_escape(socket_path)}",
        "-oBatchMode=yes",
        # Without the master it must fail, not connect by itself.
        "-oProxyCommand=false",
        *_QUIET,
        "--",
        address,
    ]


# What a user's ssh_config may add to every connection, and a test must not bring along.
_QUIET = (
    "-oClearAllForwardings=yes",
    "-oForwardAgent=no",
    "-oForwardX11=no",
    "-oPermitLocalCommand=no",
    "-oRemoteCommand=none",
    "-oRequestTTY=no",
)


class SshBackend:
    """Connects to a live host; starts, stops and changes nothing there.

    :param address: ``[user@]host`` as ssh takes it, also a name of ssh_config.
    :param config: another file than the user's ssh_config.
    :param surveys: whether the host's ports may be tried from here, and the answers held against
        its rules.
    """

    name = BackendName.SSH

    def __init__(
        self,
        address: str,
        on_event: BootListener = ignore_boot_event,
        *,
        runner: Runner | None = None,
        environment: Mapping[str, str] | None = None,
        config: Path | None = None,
        surveys: bool = False,
    ) -> None:
        self._address = address
        self._on_event = on_event
        self._surveys = surveys
        self._runner = runner or SubprocessRunner()
        self._environment = environment
        self._options = ("-F", str(config)) if config is not None else ()

    def preflight(self, name: str) -> None:  # noqa: ARG002 - as all backends are asked
        """See :class:`~pytest_nixos.machine.capabilities.Preflight`: the ssh client."""
        find_tool("ssh", remedy=_NO_SSH)

    def start(self, spec: MachineSpec, *, deadline: Deadline) -> SshRunning:
        """Connect and wait until a root command answers; ``spec.system`` is not used.

        :raises BootError: if the host cannot be reached or refuses the connection.
        :raises MachineError: if the login user is not root and may not become it without a
            password.
        """
        if not _DESTINATION.fullmatch(self._address):
            raise MachineError(
                f"{self._address!r}: expected [user@]host, as ssh takes it",
                remedy="correct --nixos-ssh",
            )
        ssh = find_tool("ssh", remedy=_NO_SSH)
        news = BootNews(spec.host.name, self._on_event)
        environment = os.environ if self._environment is None else self._environment
        connection = SshConnection(
            ssh=ssh,
            options=self._options,
            address=self._address,
            socket_path=spec.run_dir / "ssh",
            env={**environment, "LC_ALL": "C"},
        )
        make = SurveyedSshRunning if self._surveys else SshRunning
        running = make(spec.host.name, news, connection, self._runner)
        with running.life.stopped_on_error():
            running.connect(deadline)
        return running


@dataclass(frozen=True, slots=True, kw_only=True)
class SshConnection:
    """How a live host is reached.

    :param ssh: path of the client.
    :param options: options that go before all others.
    :param address: ``[user@]host`` as ssh takes it.
    :param socket_path: socket of the shared connection; its directory is where ssh runs.
    :param env: the client's whole environment.
    """

    ssh: str
    options: tuple[str, ...]
    address: str
    socket_path: Path
    env: Mapping[str, str]

    @property
    def master(self) -> list[str]:
        """The shared connection's argv."""
        return master_argv(self.ssh, self.options, self.socket_path, self.address)

    @property
    def client(self) -> list[str]:
        """The argv, up to the destination, of a command."""
        return client_argv(self.ssh, self.options, self.socket_path, self.address)

    @property
    def check(self) -> list[str]:
        """The argv that tells whether the shared connection stands."""
        control = f"-oControlPath={_escape(self.socket_path)}"
        return [self.ssh, *self.options, control, "-O", "check", "--", self.address]

    @property
    def settings(self) -> list[str]:
        """The argv that prints the options which ssh would use."""
        return [self.ssh, *self.options, "-G", "--", self.address]


class SshRunning:
    """A live host that we are connected to; made by :class:`SshBackend`.

    Its console holds what ssh itself says: a live host's serial line is not ours to read.
    """

    def __init__(
        self, name: str, news: BootNews, connection: SshConnection, runner: Runner
    ) -> None:
        self.console = news.console
        self.transport: Transport
        self.life = Lifetime(name, news, program="the shared connection", remedies=_REMEDIES)
        self._name = name
        self._connection = connection
        self._runner = runner
        self._master = SerialProcess(
            connection.master,
            env=connection.env,
            cwd=connection.socket_path.parent,
            console=self.console,
        )
        self.life.follow(self._master)

    @property
    def pid(self) -> int:
        """Process id of the ssh client that holds the shared connection."""
        return self._master.pid

    def connect(self, deadline: Deadline) -> None:
        """Open the shared connection and find out how to run commands as root."""
        self.life.undo.callback(self._master.stop, grace_s=_GRACE_S)
        self._master.start()
        if poll(self._is_up, deadline=deadline, interval_s=_INTERVAL_S) is None:
            raise self._failure(f"no connection after {deadline.limit_s:g} s")
        self.transport = self._transport(self._become(deadline))
        self.life.undo.callback(self.transport.close)
        state = self._system_state(deadline)
        self.life.has_come_up = True
        self.life.answers()
        self.life.news.tell(BootEventKind.SETTLED, f"the system is {state}")

    def is_alive(self) -> bool:
        """Whether the connection stands."""
        return self._master.pid != 0 and not self._master.has_ended

    def probe_tcp(self, ports: Sequence[int], *, deadline: Deadline) -> Mapping[int, PortState]:
        """Try TCP ports of the host from this machine, at the address that ssh connects to.

        :raises TransportError: if ssh goes through another host: from here its ports cannot be
            judged.
        """
        return scan_tcp(self._target(deadline), ports, deadline=deadline)

    def stop(self) -> None:
        """Close the connection; never raises, safe to call twice."""
        self.life.stop()

    def _is_up(self) -> bool | None:
        if self._master.has_ended:
            raise self._failure("ssh could not connect")
        done = self._runner.run(
            self._connection.check, deadline=Deadline.after(_SHORT_S), env=self._connection.env
        )
        return True if done.exit_status == 0 else None

    def _transport(self, become: Sequence[str]) -> SshTransport:
        return SshTransport(
            self._connection.client,
            name=self._name,
            env=self._connection.env,
            become=become,
            obituary=self._obituary,
        )

    def _become(self, deadline: Deadline) -> tuple[str, ...]:
        """Find the words that make root of the login user."""
        with self._explained():
            user = self._transport(()).run("id -u", deadline=deadline).stdout_text.strip()
        if user == "0":
            return ()
        with contextlib.suppress(TransportError):
            done = self._transport(_SUDO).run("id -u", deadline=deadline)
            if done.stdout_text.strip() == "0":
                return _SUDO
        raise MachineError(
            f"{self._name}: {self._connection.address} logs in as user id {user}, and sudo wants a password",
            remedy="log in as root (--nixos-ssh root@host), or let the user run sudo without a password",
        )

    def _system_state(self, deadline: Deadline) -> str:
        # A live host may still be starting or be degraded: that is for checks to judge.
        show = "timeout 20 systemctl show --property=SystemState"
        answer = self.transport.run(show, deadline=deadline).stdout_text
        return parse_properties(answer).get("SystemState") or "not run by systemd"

    def _target(self, deadline: Deadline) -> IPv4Address | IPv6Address:
        done = self._runner.run(
            self._connection.settings, deadline=deadline.within(_SHORT_S), env=self._connection.env
        )
        pairs = (line.partition(" ") for line in done.stdout_text.splitlines())
        settings = {key.lower(): value for key, _, value in pairs}
        for key in ("proxyjump", "proxycommand"):
            if settings.get(key, "none") != "none":
                raise TransportError(
                    f"{self._name}: ssh reaches it through {key} {settings[key]}, so its ports cannot be tried "
                    "from this machine",
                    remedy="run pytest on a machine in the host's own network",
                )
        hostname = settings.get("hostname", self._connection.address.rpartition("@")[2])
        try:
            found = socket.getaddrinfo(hostname, None, type=socket.SOCK_STREAM)
        except OSError as err:
            raise TransportError(
                f"{self._name}: {hostname} has no address: {err.strerror}",
                remedy="check the name in ssh_config and DNS",
            ) from err
        return ip_address(str(found[0][4][0]).partition("%")[0])

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except TransportError as err:
            raise self._failure(err.message) from err

    def _failure(self, what: str) -> BootError:
        # ssh's last words may come a moment after its end.
        self._master.wait_ended(0.2)
        tail = self.console.tail(_TAIL)
        return BootError(
            f"{self._name}: {self._connection.address}: {what}",
            remedy=_REMEDIES.choose(lines=tail),
            state="not connected",
            console_tail=tail,
        )

    def _obituary(self) -> str | None:
        if not self._master.wait_ended(0.2):
            return None
        last = self.console.tail(1)
        return f"the shared connection ended {self._master.end_words}: {last[0] if last else ''}"


class SurveyedSshRunning(SshRunning):
    """A live host that may be looked at from outside."""

    def survey(self, wanted: Survey, *, deadline: Deadline) -> tuple[View, ...]:
        """Try TCP ports of the host from this machine, by the family that ssh uses.

        :raises MachineError: if ssh goes through another host, or too many ports are wanted.
        """
        try:
            target = self._target(deadline)
        except TransportError as err:
            raise MachineError(err.message, remedy=err.remedy) from err
        asked = self._runner.run(
            (*self._connection.client, ASK_ENDS),
            deadline=deadline.within(_SHORT_S),
            env=self._connection.env,
        )
        listing = self.transport.run("ip -o address show", deadline=deadline).stdout_text
        ends = parse_ends(asked.stdout_text)
        return (look_from_here(self._name, wanted, target, ends, listing, deadline),)


def _escape(path: Path) -> str:
    """Protect what ssh_config(5) would expand in ``ControlPath``."""
    return str(path).replace("%", "%%")
