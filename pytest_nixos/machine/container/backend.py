"""The container backend: a NixOS toplevel under systemd-nspawn, watched from its first line to
its last process.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence

from pytest_nixos.errors import BootError, MachineError, TransportError
from pytest_nixos.local.namespace import Leader, in_network_of
from pytest_nixos.local.process import ProcessTimeout, Runner, SubprocessRunner, find_tool
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.base import BackendName, MachineSpec
from pytest_nixos.machine.boot.events import BootEventKind, BootListener, ignore_boot_event
from pytest_nixos.machine.boot.internet import NoWayOut
from pytest_nixos.machine.boot.news import BootNews
from pytest_nixos.machine.boot.post_mortem import with_evidence
from pytest_nixos.machine.boot.remedies import VM_REMEDIES, Remedies
from pytest_nixos.machine.boot.settle import SettleLimits
from pytest_nixos.machine.capabilities import BootsFrom, PortState, Way
from pytest_nixos.machine.channel.transport import SerialChannel
from pytest_nixos.machine.command import ExplainedTransport
from pytest_nixos.machine.container.channel import open_links
from pytest_nixos.machine.container.controls import freeze_cgroup, plug_link
from pytest_nixos.machine.container.nspawn import outside_interface
from pytest_nixos.machine.container.started import Launched
from pytest_nixos.machine.container.strategy import ContainerStrategy, NspawnStrategy, require_tools
from pytest_nixos.machine.container.told import ToldTransport
from pytest_nixos.machine.container.users import UNSAFE_OPTION
from pytest_nixos.machine.lifetime import Lifetime
from pytest_nixos.machine.network.guest_address import ask_outer_addresses
from pytest_nixos.machine.network.prober import FrameProber
from pytest_nixos.machine.network.scan import scan_tcp
from pytest_nixos.machine.network.wire import PacketLink
from pytest_nixos.machine.survey import Survey, View

__all__ = ["ContainerBackend", "ContainerRunning"]

_PROGRAM = "systemd-nspawn"
_INTERVAL_S = 0.02
_LAST_WORDS_S = 0.5

_WORDS = (
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
_GONE = "find out what ended it; every later check on this host fails with this cause"
_POST_MORTEM_S = 20.0
_KINDS = ("systemd crashed", "stuck unit", "emergency mode", "rescue mode")
_REMEDIES = Remedies(
    by_kind={kind: VM_REMEDIES.by_kind[kind] for kind in _KINDS}, by_words=_WORDS, gone=_GONE
)


class ContainerBackend:
    """Runs a host with ``boot.isContainer`` in namespaces of this machine; needs root.

    :param on_event: told what happens during boots, from any thread.
    :param runner: runs the short commands that prepare a container.
    :param environment: what systemd-nspawn's surroundings inherit, this process's environment if
        ``None``.
    :param strategy: how containers are started; :class:`NspawnStrategy` if ``None``.
    :param root_is_machine_root: for that one, and `stand_in` likewise.
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
        stand_in: bool = False,
    ) -> None:
        self._stand_in = stand_in
        self._root_is_machine_root = root_is_machine_root
        self._on_event = on_event
        self._runner = runner or SubprocessRunner()
        self._environment = environment
        self._strategy = strategy
        self._limits = limits or SettleLimits()

    def preflight(self, name: str) -> None:
        """See :class:`~pytest_nixos.machine.capabilities.Preflight`: root and the programs that
        start a container.
        """
        _require_root(name)
        require_tools()

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
            self._runner,
            inherited,
            root_is_machine_root=self._root_is_machine_root,
            stand_in=self._stand_in,
        )
        news = BootNews(spec.host.name, self._on_event)
        life = Lifetime(
            spec.host.name,
            news,
            program=_PROGRAM,
            remedies=_REMEDIES,
            # Its network ends at the other end of its link, whatever was asked for.
            no_way_out=NoWayOut.of(spec.host),
        )
        with life.stopped_on_error():
            try:
                launched = strategy.launch(spec, news.console, life.undo, deadline=deadline)
            except ProcessTimeout as err:
                # What prepares the container has the boot's time and no more.
                raise life.late(f"not started: {err.message}", deadline) from err
            running = ContainerRunning(life, launched, nsenter, self._limits.at(spec.pace))
            running.boot(deadline)
        return running


class ContainerRunning:
    """A started container; made by :class:`ContainerBackend`."""

    def __init__(
        self, life: Lifetime, launched: Launched, nsenter: str, limits: SettleLimits
    ) -> None:
        self.life = life
        self.console = life.console
        self.transport: ExplainedTransport
        self.leader: Leader | None = None
        self._channel: SerialChannel
        self._launched = launched
        self._nsenter = nsenter
        self._limits = limits
        life.undo.callback(self._tell_limits)
        self._follow()

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
            self.life.shut_down(self.transport, deadline=deadline)
        self._launched.life.close()

    def power_on(self, *, generation: int | None, deadline: Deadline) -> None:
        """Start the container again on the same root directory, in the generation of that number
        or the default.
        """
        if self._launched.relaunch is None:
            raise MachineError(
                f"{self.life.name}: this container cannot be started again",
                remedy="run the host as a VM: --nixos-backend vm",
            )
        self.console.begin_boot()
        self.leader = None
        self._launched = self._launched.relaunch(generation)
        self._follow()
        self.boot(deadline)

    def boot(self, deadline: Deadline) -> None:
        """Wait until the root command channel answers and the boot has settled."""
        self._find_leader(deadline)
        self._connect(deadline)
        notice = self._launched.notice
        with contextlib.closing(notice):
            try:
                self.life.settle(
                    self.transport, self._limits, deadline=deadline, has_sign=notice.has_come
                )
            except BootError as err:
                raise with_evidence(err, self._channel, limit_s=_POST_MORTEM_S) from err.__cause__
        self.life.has_come_up = True

    def is_alive(self) -> bool:
        """Whether the container's process 1 still runs."""
        return self.leader is not None and not self.life.has_ended

    def probe_tcp(self, ports: Sequence[int], *, deadline: Deadline) -> Mapping[int, PortState]:
        """Try TCP ports of the guest from the other end of its link."""
        with self._outside():
            return in_network_of(
                self._launched.outside_pid,
                lambda: scan_tcp(self._launched.target, ports, deadline=deadline),
            )

    def survey(self, wanted: Survey, *, deadline: Deadline) -> tuple[View, ...]:
        """Try what `wanted` names by both families, with frames of our own on the other end of
        each of its links.
        """
        launched = self._launched
        with self._outside():
            outer = ask_outer_addresses(self.life.name, self.transport, deadline=deadline)
            enter = functools.partial(in_network_of, launched.outside_pid)
            first = next((one for one in outer if one.interface not in launched.more), None)
            found: list[View] = []
            for addresses in outer:
                if addresses.interface in launched.more:
                    interface = outside_interface(addresses.interface)
                elif addresses is first:
                    interface = launched.interface
                else:
                    continue  # the guest's own doing: a tunnel, a bridge for what it runs
                prober = FrameProber(PacketLink(interface, enter))
                found += prober.survey(wanted, addresses, deadline=deadline)
            return tuple(found)

    @property
    def outside_address(self) -> str:
        """From where the container sees connections of :meth:`way_to` come."""
        launched = self._launched
        with self._outside():
            return in_network_of(launched.outside_pid, lambda: _source(str(launched.target)))

    @contextlib.contextmanager
    def way_to(self, port: int, *, deadline: Deadline) -> Iterator[Way]:  # noqa: ARG002 - it is there at once
        """Let a program stand in the network that surrounds the container."""
        launched = self._launched
        with self._outside():
            network = f"--net=/proc/{launched.outside_pid}/ns/net"
            yield Way(prefix=(self._nsenter, network, "--"), host=str(launched.target), port=port)

    @contextlib.contextmanager
    def _outside(self) -> Iterator[None]:
        if not self.is_alive():
            raise self.life.obituary() or TransportError(
                f"{self.life.name}: the container has ended", remedy="start a new machine"
            )
        try:
            yield
        except TransportError as err:
            # The root command channel is fine; only the container's network is not what a stranger
            # needs.
            raise MachineError(err.message, remedy=err.remedy) from err

    def freeze(self) -> None:
        """Stop every process of the container."""
        freeze_cgroup(self._launched.guest_cgroup(), frozen=True)

    def thaw(self) -> None:
        """Let them go on."""
        freeze_cgroup(self._launched.guest_cgroup(), frozen=False)

    def plug(self, *, connected: bool) -> None:
        """Give or take the carrier of the container's links."""
        launched = self._launched
        for interface in (launched.interface, *map(outside_interface, launched.more)):
            plug_link(
                SubprocessRunner(),
                self._nsenter,
                launched.outside_pid,
                interface,
                connected=connected,
            )

    def stop(self) -> None:
        """End the container and remove everything that it left; never raises, safe to call
        twice.
        """
        self.life.stop()

    def _follow(self) -> None:
        self.life.follow(
            self._launched.process,
            # systemd-nspawn itself ends a moment later than process 1.
            is_gone=lambda: self.leader is not None and not self.leader.is_alive,
        )

    def _find_leader(self, deadline: Deadline) -> None:
        def look() -> Leader | None:
            self.life.check()
            pid = self._launched.find_leader()
            with contextlib.suppress(ProcessLookupError):
                return None if pid is None else Leader(pid)
            return None

        leader = poll(look, deadline=deadline, interval_s=_INTERVAL_S)
        if leader is None:
            raise self.life.late("no container", deadline)
        self.leader = leader
        self._launched.life.callback(leader.close)
        # The root directory is thrown away: nothing is gained by an orderly shutdown, which can
        # take minutes.
        self._launched.life.callback(leader.send, signal.SIGKILL)
        try:
            self._launched.life.callback(self._launched.on_created(leader.pid))
        except MachineError:
            # A container that has ended meanwhile tells more than what could not be done to it.
            self._launched.process.wait_ended(_LAST_WORDS_S)
            self.life.check()
            raise

    def _connect(self, deadline: Deadline) -> None:
        links = open_links(self._launched.channel, self._launched.life)
        channel = SerialChannel(links)
        self._launched.life.callback(channel.close)
        self._channel = channel
        with self.life.explained(deadline, "no answer from the root command channel"):
            channel.wait_ready(deadline, self.life.check)
        self.transport = self.life.explain(ToldTransport(channel, self._tell_limits))
        self.life.answers()

    def _tell_limits(self) -> None:
        """Say on the console which limits the container has come to; what fails then fails for
        that.
        """
        for text in self._launched.limits_reached():
            self.console.append(f"pytest-nixos: {text}")
            self.life.news.tell(BootEventKind.TROUBLE, text)


def _require_root(name: str) -> None:
    if os.geteuid() != 0:
        raise MachineError(
            f"{name}: starting a container needs root, this is user id {os.geteuid()}",
            remedy="run pytest with sudo, or run the host as a VM: --nixos-backend vm",
        )


def _source(target: str) -> str:
    """Return the address that packets to `target` have in this network; none is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        datagram.connect((target, 9))
        return str(datagram.getsockname()[0])
