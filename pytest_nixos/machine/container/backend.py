"""The container backend: a NixOS toplevel under systemd-nspawn, watched from its first line to its last process."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Iterator, Mapping, Sequence

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
from pytest_nixos.machine.channel.transport import SerialChannel
from pytest_nixos.machine.command import ExplainedTransport
from pytest_nixos.machine.container.channel import open_links
from pytest_nixos.machine.container.controls import freeze_cgroup, plug_link
from pytest_nixos.machine.container.started import Launched
from pytest_nixos.machine.container.strategy import ContainerStrategy, NspawnStrategy
from pytest_nixos.machine.container.told import ToldTransport
from pytest_nixos.machine.container.users import UNSAFE_OPTION
from pytest_nixos.machine.lifetime import ask_to_power_off, await_end
from pytest_nixos.machine.network.guest_address import ask_outer_addresses
from pytest_nixos.machine.network.prober import FrameProber
from pytest_nixos.machine.network.scan import scan_tcp
from pytest_nixos.machine.network.wire import PacketLink
from pytest_nixos.machine.survey import Survey, View

__all__ = ["ContainerBackend", "ContainerRunning"]

_TAIL = 40
_LAST_WORDS_S = 0.5
_INTERVAL_S = 0.02

_REMEDIES = (
    ("overlay", "load the overlay module (modprobe overlay): the container's store lies on it"),
    (
        "execv(",
        "build the host's toplevel again: its init cannot be run; was it collected as garbage?",
    ),
    (
        "owners of /nix/store cannot be mapped",
        (
            "put /nix/store on a file system that can (ext4, xfs, btrfs; kernel 5.19 or newer), or run the host as a VM: "
            f"--nixos-backend vm; a flake that you trust like your own shell may run with {UNSAFE_OPTION}"
        ),
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
    :param strategy: how containers are started; :class:`NspawnStrategy` if ``None``.
    :param root_is_machine_root: for that one.
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
        root_is_machine_root: bool = False,
    ) -> None:
        self._root_is_machine_root = root_is_machine_root
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
        strategy = self._strategy or NspawnStrategy(
            self._runner, inherited, root_is_machine_root=self._root_is_machine_root
        )
        news = BootNews(spec.host.name, self._on_event)
        with contextlib.ExitStack() as stack:
            launched = strategy.launch(spec, news.console, stack, deadline=deadline)
            running = ContainerRunning(spec.host.name, news, launched, stack, nsenter, self._limits)
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
        self._booted = False

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
        self._booted = False
        self.leader = None
        self._launched = self._launched.relaunch(generation)
        self._process = self._launched.process
        self.boot(deadline)

    def boot(self, deadline: Deadline) -> None:
        """Wait until the root command channel answers and the boot has settled."""
        self._find_leader(deadline)
        self._connect(deadline)
        with self._explained(deadline, "the boot did not settle"):
            settle(
                self.transport,
                machine=self._name,
                deadline=deadline,
                limits=self._limits,
                tell=self._news.tell,
                check=self._check,
            )
        self._booted = True

    def keep(self, stack: contextlib.ExitStack) -> None:
        """Take over what :meth:`stop` has to undo."""
        self._stack = stack

    def is_alive(self) -> bool:
        """Whether the container's process 1 still runs."""
        return self.leader is not None and self.leader.is_alive and not self._process.has_ended

    def probe_tcp(self, ports: Sequence[int], *, deadline: Deadline) -> Mapping[int, PortState]:
        """Try TCP ports of the guest from the other end of its link."""
        with self._outside():
            return in_network_of(
                self._launched.outside_pid,
                lambda: scan_tcp(self._launched.target, ports, deadline=deadline),
            )

    def survey(self, wanted: Survey, *, deadline: Deadline) -> tuple[View, ...]:
        """Try what `wanted` names by both families, with frames of our own on the other end of its link."""
        launched = self._launched
        with self._outside():
            outer = ask_outer_addresses(self._name, self.transport, deadline=deadline)
            enter = functools.partial(in_network_of, launched.outside_pid)
            prober = FrameProber(PacketLink(launched.interface, enter))
            return prober.survey(wanted, outer, deadline=deadline)

    @contextlib.contextmanager
    def _outside(self) -> Iterator[None]:
        if not self.is_alive():
            raise self._obituary() or TransportError(
                f"{self._name}: the container has ended", remedy="start a new machine"
            )
        try:
            yield
        except TransportError as err:
            # The root command channel is fine; only the container's network is not what a stranger needs.
            raise MachineError(err.message, remedy=err.remedy) from err

    def freeze(self) -> None:
        """Stop every process of the container."""
        freeze_cgroup(self._launched.guest_cgroup(), frozen=True)

    def thaw(self) -> None:
        """Let them go on."""
        freeze_cgroup(self._launched.guest_cgroup(), frozen=False)

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
            self._tell_limits()
            self._stack.close()
        except (OSError, NixosError) as err:
            self.console.append(f"pytest-nixos: while stopping {self._name}: {err}")

    def _find_leader(self, deadline: Deadline) -> None:
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
        self._launched.life.callback(self._launched.on_created(leader.pid))

    def _connect(self, deadline: Deadline) -> None:
        links = open_links(self._launched.channel, self._launched.life)
        channel = SerialChannel(links)
        self._launched.life.callback(channel.close)
        with self._explained(deadline, "no answer from the root command channel"):
            channel.wait_ready(deadline, self._check_channel)
        told = ToldTransport(channel, self._tell_limits)
        self.transport = ExplainedTransport(told, self._obituary)
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

    def _tell_limits(self) -> None:
        """Say on the console which limits the container has come to; what fails then fails for that."""
        for text in self._launched.limits_reached():
            self.console.append(f"pytest-nixos: {text}")
            self._news.tell(BootEventKind.TROUBLE, text)

    def _check_channel(self) -> None:
        """Raise while the channel waits if the container ended or, before its boot has settled, will not come up."""
        if not self._booted:
            self._check()
        elif not self.is_alive():
            raise self._obituary() or TransportError(
                f"{self._name}: the container has ended", remedy="start a new machine"
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
        self._tell_limits()
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
