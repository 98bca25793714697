"""What a machine is: a composition of spec, backend, console and transport."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import msgspec

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import BrokenMachineError, MachineError
from pytest_nixos.local.pace import Pace, Pacer
from pytest_nixos.local.timing import Deadline, Recall
from pytest_nixos.machine.capabilities import BootsFrom, Displayed, PortState, Powered, Resettable
from pytest_nixos.machine.command import (
    DEFAULT_COMMAND_TIMEOUT_S,
    CommandResult,
    Transport,
    run_many,
)
from pytest_nixos.machine.console import Console
from pytest_nixos.machine.files import GuestFiles
from pytest_nixos.machine.pct import Pct
from pytest_nixos.machine.picture import Picture
from pytest_nixos.machine.survey import Survey, Surveyable, View
from pytest_nixos.machine.terminal import attach
from pytest_nixos.machine.user_session import UserSession
from pytest_nixos.nix.config.host_facts import HostConfig

if TYPE_CHECKING:
    from pytest_nixos.machine.login.by_password import LoginTerminal
    from pytest_nixos.machine.login.ssh_login import SshUser

__all__ = [
    "Backend",
    "BackendName",
    "Cloning",
    "Machine",
    "MachineSpec",
    "NetworkCard",
    "Running",
    "SecretArchive",
    "State",
]


_PROBE_S = 30.0


class State(enum.Enum):
    """Where a machine is in its life: each state leads to later ones only, except that OFF and
    BROKEN lead back to RUNNING.
    """

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    OFF = "switched off"
    BROKEN = "broken"
    STOPPED = "stopped"


class SecretArchive(msgspec.Struct, frozen=True, kw_only=True):
    """What a guest's first activation unpacks to have secrets, see
    :mod:`pytest_nixos.test_secrets`.

    :param path: a tar file of this machine's run directory.
    :param digest: names the values in it.
    :param may_be_saved: whether a machine state that holds them may be kept.
    """

    path: Path
    digest: str
    may_be_saved: bool


class NetworkCard(msgspec.Struct, frozen=True, kw_only=True):
    """A network card of a VM on a network of ours; its socket waits in the run directory.

    :param hardware: its Ethernet address.
    :param lease: what the network gives it, as text; part of what a saved state has seen.
    """

    hardware: str
    lease: str = ""


class MachineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that shapes one machine.

    :param system: built store path: the run script's package (VM) or the toplevel (container).
    :param memory_mib: overrides what the host declares, in MiB.
    :param cores: overrides what the host declares.
    :param boot_timeout_s: seconds from start to a settled system.
    :param run_dir: directory of this machine alone, on a short path, removed when it stops.
    :param pace: how much longer this machine takes than limits were made for; `boot_timeout_s` is
        as it is here already.
    :param secrets: ``None`` where the host gets none.
    :param cards: network cards on networks of ours, in place of QEMU's user network (VM).
    :param registration: what Nix's database says of all that `system` needs, ``None`` where this
        machine's Nix is to be asked.
    :param recall: ends its start from another thread.
    :param pct: what Proxmox gives it (container), ``None`` where it is none of Proxmox's.
    """

    host: HostConfig
    system: Path
    run_dir: Path
    boot_timeout_s: float
    memory_mib: int | None = None
    cores: int | None = None
    pace: Pace = msgspec.field(default_factory=Pace)
    secrets: SecretArchive | None = None
    cards: tuple[NetworkCard, ...] = ()
    registration: bytes | None = None
    recall: Recall | None = None
    pct: Pct | None = None


class Running(Protocol):
    """A started machine, as a backend hands it over."""

    @property
    def console(self) -> Console: ...

    @property
    def transport(self) -> Transport: ...

    def is_alive(self) -> bool:
        """Whether the machine still runs (asked of the host machine, not of the guest)."""
        ...

    def probe_tcp(self, ports: Sequence[int], *, deadline: Deadline) -> Mapping[int, PortState]:
        """Try TCP ports of the guest from outside, as a stranger on its network would."""
        ...

    def stop(self) -> None:
        """End the machine and remove everything that it left on the host machine; never raises."""
        ...


class Backend(Protocol):
    """A way to run machines; plugins add more through ``pytest_nixos_backends``."""

    name: BackendName

    def start(self, spec: MachineSpec, *, deadline: Deadline) -> Running:
        """Start a machine and wait until its root command channel answers.

        :raises BootError: if it does not get there; nothing is left running.
        """
        ...


@runtime_checkable
class Cloning(Protocol):
    """A backend that can start a machine from its snapshot."""

    def clone(self, spec: MachineSpec, *, deadline: Deadline) -> Running:
        """Start a machine from its snapshot, or not at all.

        :raises MachineError: if there is none, or it does not start; nothing is left running.
        """
        ...


class Machine:
    """One running instance of a host config.

    Use it as a context manager: leaving it stops the machine and removes all traces.
    """

    def __init__(self, spec: MachineSpec, backend: Backend) -> None:
        self.spec = spec
        self.backend = backend
        self.state = State.NEW
        self.epoch = 0
        #: called before :meth:`shell` takes the terminal, to stop what moves there
        self.before_shell: Callable[[], None] = lambda: None
        self._pacer = Pacer(spec.pace)
        self._running: Running | None = None
        self._condemned = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def name(self) -> str:
        """Name of the host."""
        return self.spec.host.name

    @property
    def console(self) -> Console:
        """The serial text so far."""
        return self._live().console

    @property
    def transport(self) -> Transport:
        """The root command channel."""
        if self.state is State.OFF:
            raise MachineError(
                f"{self.name}: the machine is switched off", remedy="power_on() starts it again"
            )
        return self._live().transport

    @property
    def files(self) -> GuestFiles:
        """Reads, writes and copies files of the guest."""
        return GuestFiles(self.transport)

    @property
    def running(self) -> Running:
        """What the backend made; it may offer more than the protocol, see
        :mod:`pytest_nixos.machine.capabilities`.
        """
        return self._live()

    def start(self, *, clone_only: bool = False) -> None:
        """Start the machine and wait until its root command channel answers.

        :param clone_only: start it from its snapshot, or not at all.
        :raises BootError: if it does not come up within ``spec.boot_timeout_s``.
        :raises MachineError: if it was to be a clone, and there is no snapshot of it.
        :raises Recalled: if ``spec.recall`` was given; nothing is left running.
        """
        if self.state is not State.NEW:
            raise MachineError(
                f"{self.name}: cannot start a machine that is {self.state.value}",
                remedy="make a new machine",
            )
        start = self.backend.start
        if clone_only:
            if not isinstance(self.backend, Cloning):
                raise MachineError(
                    f"{self.name}: its backend has no snapshots", remedy="start it by a boot"
                )
            start = self.backend.clone
        self.state = State.STARTING
        try:
            limit = Deadline.after(self.spec.boot_timeout_s, recall=self.spec.recall)
            self._running = start(self.spec, deadline=limit)
        except BaseException:
            self.state = State.BROKEN
            raise
        self.state = State.RUNNING
        self.epoch += 1

    def deadline(self, limit_s: float) -> Deadline:
        """Make a deadline for what takes `limit_s` seconds at most on an idle machine; later
        where this one is slow by now.
        """
        return Deadline.after(self.pace.limit(limit_s))

    @property
    def pace(self) -> Pace:
        """How slow this machine has become; ``spec.pace`` is what it was at the start."""
        return self._pacer.now()

    def run(
        self, command: str, *, timeout_s: float | None = None, stdin: bytes = b""
    ) -> CommandResult:
        """Run `command` as root in the guest; see :class:`Transport` for the errors.

        :param timeout_s: seconds, as they are; two minutes of an idle machine without it.
        """
        return self.transport.run(command, deadline=self._limit(timeout_s), stdin=stdin)

    def as_user(self, user: str) -> UserSession:
        """Return the machine as one of its users meets it after a login.

        :raises MachineError: if it has no such user.
        """
        return UserSession(self, user)

    def login(self, user: str) -> AbstractContextManager[LoginTerminal]:
        """Log a user in on a terminal of the guest, as at a getty: by the host's own login program
        and PAM, into the user's own shell, with a password of the run in the place of their own.

        The terminal is one of its own; an account that is locked stays locked. What the host has for
        passwords is there again when the context ends, and so has the session.

        :return: of a :class:`~pytest_nixos.machine.login.by_password.LoginTerminal`, which offers what
            pexpect's ``spawn`` does (``expect``, ``sendline``), and ``run()``.
        :raises LoginRefused: if the user is not let in.
        :raises MachineError: if the machine is a live host, has no such user, or no login program.
        """
        from pytest_nixos.machine.login.by_password import password_login

        return password_login(self, user)

    def ssh_login(self, user: str, *, port: int | None = None) -> AbstractContextManager[SshUser]:
        """Let a user log in by ssh from outside through the host's own sshd, with a key of the run
        that sshd accepts until the context ends.

        The key stands beside the user's own in a file that sshd reads for them; that file, PAM,
        ``AllowUsers``, ``Match`` blocks and the firewall are as the host declares them.

        :param port: where sshd listens, by default the first port that its configuration names.
        :return: of a :class:`~pytest_nixos.machine.login.ssh_login.SshUser`, whose ``run()`` logs in,
            and raises :class:`~pytest_nixos.errors.LoginRefused` where sshd lets nobody in.
        :raises MachineError: if the machine cannot be reached from outside, is a live host, or has
            no such user or no sshd.
        """
        from pytest_nixos.machine.login.by_ssh import ssh_login

        return ssh_login(self, user, port=port)

    def screenshot(self, file: Path) -> None:
        """Write what the machine's screen shows, a desktop or a text console, as PNG.

        :param file: is made or overwritten.
        :raises MachineError: if the machine has no screen, as a container or a live host.
        """
        file.write_bytes(self.screen().png())

    def screen(self) -> Picture:
        """Return what the machine's screen shows; see :meth:`screenshot`."""
        running = self.running
        if not isinstance(running, Displayed):
            raise MachineError(
                f"{self.name}: a {self.backend.name.place} has no screen",
                remedy="ask for a VM: --nixos-backend vm, or @pytest.mark.nixos_requires('vm')",
            )
        return running.screen()

    def shell(self, command: str = "exec bash -l") -> int:
        """Run a command in the guest on the terminal of whoever runs pytest; by default a root
        shell.

        :return: its exit status; 0 where Ctrl-] left it behind.
        :raises MachineError: if there is no terminal.
        """
        self.before_shell()
        try:
            return attach(self.transport, command=command)
        finally:
            self.invalidate()

    def breakpoint(self) -> None:
        """Stop the test in a root shell in the guest, and go on when it ends."""
        self.shell()

    def run_many(
        self, commands: Sequence[str], *, timeout_s: float | None = None
    ) -> tuple[CommandResult, ...]:
        """Run `commands` one after the other in one trip; see
        :func:`pytest_nixos.machine.command.run_many`.

        :param timeout_s: for all of them.
        """
        return run_many(self.transport, commands, deadline=self._limit(timeout_s))

    def probe_tcp(
        self, ports: Sequence[int], *, timeout_s: float | None = None
    ) -> Mapping[int, PortState]:
        """Try TCP ports of the guest from outside."""
        limit = self.deadline(_PROBE_S) if timeout_s is None else Deadline.after(timeout_s)
        return self._live().probe_tcp(ports, deadline=limit)

    @property
    def can_survey(self) -> bool:
        """Whether its backend has a place for a stranger on the guest's network."""
        return isinstance(self._live(), Surveyable)

    def survey(self, wanted: Survey, *, timeout_s: float = 300.0) -> tuple[View, ...]:
        """Look at the guest from outside: TCP, UDP and ping by IPv4 and IPv6.

        :raises MachineError: if its backend has nowhere for a stranger to stand, or the guest is
            not on its network.
        """
        running = self._live()
        if not isinstance(running, Surveyable):
            raise MachineError(
                f"{self.name}: the {self.backend.name.value} backend cannot stand on the guest's network",
                remedy="use probe_tcp(), or run the host as a VM or a container",
            )
        return running.survey(wanted, deadline=Deadline.after(timeout_s))

    def invalidate(self) -> None:
        """Begin a new epoch: what was observed before no longer holds."""
        self.epoch += 1

    @property
    def boots_from(self) -> BootsFrom | None:
        """What decides which generation comes up after a reboot, ``None`` where this backend
        cannot reboot.
        """
        return self._running.boots_from if isinstance(self._running, Powered) else None

    def power_off(self, *, orderly: bool) -> None:
        """Shut the machine down, or cut its power; :meth:`power_on` starts it again on the same
        disk.

        :raises MachineError: if its backend cannot, or an orderly shutdown takes longer than a boot
            may.
        """
        powered = self._powered()
        powered.power_off(orderly=orderly, deadline=Deadline.after(self.spec.boot_timeout_s))
        self.state = State.OFF
        self.invalidate()

    def power_on(self, *, generation: int | None = None) -> None:
        """Start a machine that is off and wait until its boot has settled; a new epoch begins.

        :param generation: number of the generation to boot, where the backend itself chooses (a
            container).
        :raises BootError: if it does not come up; the machine is off then and may be tried again.
        """
        powered = self._powered()
        if self.state is not State.OFF:
            raise MachineError(
                f"{self.name}: cannot be switched on, it is {self.state.value}",
                remedy="power_off() first",
            )
        deadline = Deadline.after(self.spec.boot_timeout_s)
        try:
            powered.power_on(generation=generation, deadline=deadline)
        except BaseException:
            # What hangs in a panic must not hold the disk when it is tried again.
            powered.power_off(orderly=False, deadline=deadline)
            raise
        self._condemned = ""
        self.state = State.RUNNING
        self.invalidate()

    @property
    def can_reset(self) -> bool:
        """Whether :meth:`reset` is there and quick: the machine is a clone of a snapshot."""
        return isinstance(self._running, Resettable) and self._running.is_clone

    def reset(self) -> None:
        """Go back to the snapshot that the machine was started from, whatever became of it; a
        new epoch begins.

        The console starts empty again.

        :raises MachineError: if it was not started from a snapshot, or a clone does not start.
        """
        if not self.can_reset:
            raise MachineError(
                f"{self.name}: was not started from a snapshot, so there is nothing to go back to",
                remedy="use nixos_fresh_machine, which starts a new machine where there is no snapshot",
            )
        running, self._running = self._running, None
        self.state = State.BROKEN
        if running is not None:
            running.stop()
        limit = Deadline.after(self.spec.boot_timeout_s)
        self._running = self.backend.start(self.spec, deadline=limit)
        self._condemned = ""
        self.state = State.RUNNING
        self.invalidate()

    def condemn(self, reason: str) -> None:
        """Declare the machine broken: it answers no more commands until it has been switched off
        and on.
        """
        self._condemned = reason
        self.state = State.BROKEN

    def stop(self) -> None:
        """End the machine; safe to call in any state, any number of times."""
        running, self._running = self._running, None
        self.state = State.STOPPED
        if running is not None:
            running.stop()

    def _limit(self, timeout_s: float | None) -> Deadline:
        if timeout_s is None:
            return self.deadline(DEFAULT_COMMAND_TIMEOUT_S)
        return Deadline.after(timeout_s)

    def _live(self) -> Running:
        if self._running is None:
            raise MachineError(
                f"{self.name}: the machine is {self.state.value}",
                remedy="start it first; a stopped machine cannot be used again",
            )
        if self._condemned:
            raise BrokenMachineError(
                f"{self.name}: the machine is broken: {self._condemned}",
                remedy="use a fresh machine, or switch this one off and on",
            )
        return self._running

    def _powered(self) -> Powered:
        if not isinstance(self._running, Powered):
            raise MachineError(
                f"{self.name}: the {self.backend.name.value} backend cannot switch a machine off and on",
                remedy="run the host as a VM or a container, started by this session",
            )
        return self._running
