"""The container backend: a NixOS toplevel under systemd-nspawn, watched from its first line to its last process."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_nixos.errors import BootError, MachineError, NixosError, TransportError
from pytest_nixos.local.namespace import Leader, in_network_of
from pytest_nixos.local.process import Runner, SubprocessRunner, find_tool
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.base import BackendName, MachineSpec
from pytest_nixos.machine.boot.events import BootEventKind, BootListener, ignore_boot_event
from pytest_nixos.machine.boot.failure import explained, fatal_error, late_error
from pytest_nixos.machine.boot.news import BootNews
from pytest_nixos.machine.boot.settle import SettleLimits, settle
from pytest_nixos.machine.capabilities import BootsFrom, PortState
from pytest_nixos.machine.command import ExplainedTransport
from pytest_nixos.machine.container.controls import freeze_cgroup, plug_link
from pytest_nixos.machine.container.started import Launched
from pytest_nixos.machine.container.strategy import ContainerStrategy, choose_strategy
from pytest_nixos.machine.container.transport import NamespaceTransport
from pytest_nixos.machine.lifetime import ask_to_power_off, await_end
from pytest_nixos.machine.network.scan import scan_tcp

__all__ = ["ContainerBackend", "ContainerRunning"]

_TAIL = 40
_LAST_WORDS_S = 0.5
_INTERVAL_S = 0.02
# systemd's own socket: from then on systemctl works (src/core/dbus.c, bus_init_private).
_SYSTEMD_SOCKET = "run/systemd/private"

_REMEDIES = (
    ("overlay", "load the overlay module (modprobe overlay): the container's store lies on it"),
    (
        "execv(",
        "build the host's toplevel again: its init cannot be run; was it collected as garbage?",
    ),
    (
        "pytest-nixos-stage",
        "read the console lines above: a mount or a network interface was refused",
    ),
    (
        "Permission denied",
        "run as root of the machine itself: containers in containers are often confined",
    ),
    (
        "Operation not permitted",
        "run as root of the machine itself: containers in containers are often confined",
    ),
)
_DEFAULT_REMEDY = "read the console lines above for the first thing that went wrong"


class ContainerBackend:
    """Runs a host with ``boot.isContainer`` in namespaces of this machine; needs root.

    :param on_event: told what happens during boots, from any thread.
    :param runner: runs the short commands that prepare a container.
    :param environment: what systemd-nspawn's surroundings inherit, this process's environment if ``None``.
    :param strategy: how containers are started; found out if ``None``.
    """

    name = BackendName.CONTAINER

    def __init__(
        self,
        on_event: BootListener = ignore_boot_event,
        *,
        runner: Runner | None = None,
        environment: Mapping[str, str] | None = None,
        strategy: ContainerStrategy | None = None,
        limits: SettleLimits | None = None,
    ) -> None:
        self._on_event = on_event
        self._runner = runner or SubprocessRunner()
        self._environment = environment
        self._strategy = strategy
        self._limits = limits or SettleLimits()

    def start(self, spec: MachineSpec, *, deadline: Deadline) -> ContainerRunning:
        """Start a machine and wait until its boot has settled.

        :raises BootError: if it does not get there; nothing is left running.
        :raises MachineError: if this user may not start containers.
        :raises ToolMissingError: if systemd-nspawn, nsenter, unshare or ip is missing.
        """
        _require_root(spec.host.name)
        nsenter = find_tool("nsenter", remedy="install util-linux")
        inherited = os.environ if self._environment is None else self._environment
        strategy = self._strategy or choose_strategy(self._runner, inherited)
        news = BootNews(spec.host.name, self._on_event)
        with contextlib.ExitStack() as stack:
            launched = strategy.launch(spec, news.console, stack, deadline=deadline)
            running = ContainerRunning(
                spec.host.name, news, launched, stack, nsenter, self._limits.at(spec.pace)
            )
            running.boot(deadline)
            running.keep(stack.pop_all())
        return running


class ContainerRunning:
    """A started container; made by :class:`ContainerBackend`.

    :param stack: receives what must be undone, in the order in which it was done.
    """

    def __init__(
        self,
        name: str,
        news: BootNews,
        launched: Launched,
        stack: contextlib.ExitStack,
        nsenter: str,
        limits: SettleLimits,
    ) -> None:
        self.console = news.console
        self.transport: ExplainedTransport
        self.leader: Leader | None = None
        self._name = name
        self._news = news
        self._launched = launched
        self._process = launched.process
        self._stack = stack
        self._nsenter = nsenter
        self._limits = limits

    @property
    def pid(self) -> int:
        """Process id of systemd-nspawn, which lives in the network that surrounds the container."""
        return self._launched.outside_pid

    @property
    def boots_from(self) -> BootsFrom:
        """A container comes up in its system profile's generation."""
        return BootsFrom.PROFILE

    def power_off(self, *, orderly: bool, deadline: Deadline) -> None:
        """Shut the container down, or kill all that runs in it; its root directory stays."""
        if orderly and self.is_alive():
            ask_to_power_off(
                lambda command, limit: self.transport.run(command, deadline=limit),
                deadline=deadline,
            )
            await_end(self._name, lambda: self._process.has_ended, deadline=deadline)
        self._launched.life.close()

    def power_on(self, *, generation: int | None, deadline: Deadline) -> None:
        """Start the container again on the same root directory, in the generation of that number or the default."""
        if self._launched.relaunch is None:
            raise MachineError(
                f"{self._name}: a container of nixos-container cannot be started again here",
                remedy="run the host as a VM: --nixos-backend vm",
            )
        self.console.begin_boot()
        self.leader = None
        self._launched = self._launched.relaunch(generation)
        self._process = self._launched.process
        self.boot(deadline)

    def boot(self, deadline: Deadline) -> None:
        """Wait until the root command channel answers and the boot has settled."""
        leader = self._find_leader(deadline)
        self._await_systemd(leader, deadline)
        self._connect(leader, deadline)
        with self._explained(deadline, "the boot did not settle"):
            settle(
                self.transport,
                machine=self._name,
                deadline=deadline,
                limits=self._limits,
                tell=self._news.tell,
                check=self._check,
            )

    def keep(self, stack: contextlib.ExitStack) -> None:
        """Take over what :meth:`stop` has to undo."""
        self._stack = stack

    def is_alive(self) -> bool:
        """Whether the container's process 1 still runs."""
        return self.leader is not None and self.leader.is_alive and not self._process.has_ended

    def probe_tcp(self, ports: Sequence[int], *, deadline: Deadline) -> Mapping[int, PortState]:
        """Try TCP ports of the guest from the other end of its link."""
        if not self.is_alive():
            raise self._obituary() or TransportError(
                f"{self._name}: the container has ended", remedy="start a new machine"
            )
        try:
            return in_network_of(
                self._launched.outside_pid,
                lambda: scan_tcp(self._launched.target, ports, deadline=deadline),
            )
        except TransportError as err:
            # The root command channel is fine; only the container's network is not what a stranger needs.
            raise MachineError(err.message, remedy=err.remedy) from err

    def freeze(self) -> None:
        """Stop every process of the container."""
        freeze_cgroup(self._cgroup(), frozen=True)

    def thaw(self) -> None:
        """Let them go on."""
        freeze_cgroup(self._cgroup(), frozen=False)

    def plug(self, *, connected: bool) -> None:
        """Give or take the carrier of the container's link."""
        launched = self._launched
        plug_link(
            SubprocessRunner(),
            self._nsenter,
            launched.outside_pid,
            launched.interface,
            connected=connected,
        )

    def stop(self) -> None:
        """End the container and remove everything that it left; never raises, safe to call twice."""
        try:
            self._stack.close()
        except (OSError, NixosError) as err:
            self.console.append(f"pytest-nixos: while stopping {self._name}: {err}")

    def _cgroup(self) -> Path | None:
        return None if self.leader is None else self._launched.cgroup_of(self.leader)

    def _find_leader(self, deadline: Deadline) -> Leader:
        def look() -> Leader | None:
            self._check()
            pid = self._launched.find_leader()
            with contextlib.suppress(ProcessLookupError):
                return None if pid is None else Leader(pid)
            return None

        leader = poll(look, deadline=deadline, interval_s=_INTERVAL_S)
        if leader is None:
            raise late_error(self._name, self.console, "no container", deadline.limit_s)
        self.leader = leader
        self._launched.life.callback(leader.close)
        # The root directory is thrown away: nothing is gained by an orderly shutdown, which can take minutes.
        self._launched.life.callback(leader.send, signal.SIGKILL)
        self._launched.life.callback(self._launched.on_created())
        return leader

    def _await_systemd(self, leader: Leader, deadline: Deadline) -> None:
        def look() -> bool | None:
            self._check()
            return True if os.path.lexists(leader.root / _SYSTEMD_SOCKET) else None

        if poll(look, deadline=deadline, interval_s=_INTERVAL_S) is None:
            raise late_error(
                self._name, self.console, "no systemd in the container", deadline.limit_s
            )

    def _connect(self, leader: Leader, deadline: Deadline) -> None:
        transport = NamespaceTransport(
            leader,
            name=self._name,
            nsenter=self._nsenter,
            cgroup=self._launched.cgroup_of(leader),
        )
        self._launched.life.callback(transport.close)
        self.transport = ExplainedTransport(transport, self._obituary)
        with self._explained(deadline, "no answer from the root command channel"):
            self.transport.run("true", deadline=deadline)
        self._news.tell(BootEventKind.CHANNEL, "the root command channel answers")

    def _explained(self, deadline: Deadline, what: str) -> contextlib.AbstractContextManager[None]:
        return explained(
            self._name,
            self.console,
            what,
            deadline,
            ended=lambda: self._process.wait_ended(_LAST_WORDS_S),
            check=self._check,
        )

    def _check(self) -> None:
        """Raise at once if the container ended or its boot cannot succeed any more."""
        trouble = self.console.fatal_trouble
        if trouble is not None:
            raise fatal_error(self._name, self.console, trouble)
        if self._process.has_ended or (self.leader is not None and not self.leader.is_alive):
            # systemd-nspawn speaks its last words after process 1 has ended.
            self._process.wait_ended(_LAST_WORDS_S)
            raise self._ended_error()

    def _ended_error(self) -> BootError:
        tail = self.console.tail(_TAIL)
        remedies = (text for sign, text in _REMEDIES if any(sign in line for line in tail))
        return BootError(
            f"{self._name}: systemd-nspawn ended {self._process.end_words} after "
            f"{self.console.phase.words} ({self.console.elapsed_s:.0f} s)",
            remedy=next(remedies, _DEFAULT_REMEDY),
            state="the container ended",
            console_tail=tail,
        )

    def _obituary(self) -> TransportError | None:
        """Say why the container is gone, ``None`` while it lives."""
        if self.is_alive():
            return None
        # systemd-nspawn speaks its last words after process 1 has ended.
        self._process.wait_ended(_LAST_WORDS_S)
        tail = "".join(f"\n  | {line}" for line in self.console.tail(_TAIL))
        return TransportError(
            f"{self._name}: the container ended (systemd-nspawn ended {self._process.end_words}); "
            f"last console lines:{tail}",
            remedy="find out what ended it; every later check on this host fails with this cause",
        )


def _require_root(name: str) -> None:
    if os.geteuid() != 0:
        raise MachineError(
            f"{name}: starting a container needs root, this is user id {os.geteuid()}",
            remedy="run pytest with sudo, or run the host as a VM: --nixos-backend vm",
        )
