"""Containers on a network of a cluster: the outer end of a container's link is a port of the
network's switch.

A container keeps its ``eth0``, with the hardware address that the plan gives it. This machine's own
network is not touched, and the namespace with the outer ends goes away with the network.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import msgspec

from pytest_nixos.errors import MachineError
from pytest_nixos.local.namespace import in_network_of, link_argv
from pytest_nixos.local.process import Runner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.base import MachineSpec
from pytest_nixos.machine.cluster.network import ClusterNetwork, port_name
from pytest_nixos.machine.cluster.outside_program import plain_frames, raw_socket
from pytest_nixos.machine.cluster.plan import Place
from pytest_nixos.machine.console import Console
from pytest_nixos.machine.container.nspawn import OUTSIDE_INTERFACE
from pytest_nixos.machine.container.started import Launched
from pytest_nixos.machine.container.strategy import NspawnStrategy
from pytest_nixos.machine.network.scan import GUEST_INTERFACE, LinkAddresses
from pytest_nixos.nix.config.cards import Card
from pytest_nixos.nix.config.host_facts import HostConfig

__all__ = ["ContainerPorts", "container_cards", "join_argv", "port_argv"]

_SHORT_S = 30.0


def container_cards(host: HostConfig) -> HostConfig:
    """Return a host as its container has it: with the one card that a container's link is."""
    own = next((card for card in host.cards if card.name == GUEST_INTERFACE), None)
    hardware = host.cards[0].hardware if host.cards else "52:54:00:00:00:01"
    card = own or Card(name=GUEST_INTERFACE, hardware=hardware)
    return msgspec.structs.replace(host, cards=(card,))


class ContainerPorts:
    """Starts the container of one member, whose link is a port of a network.

    :param place: the member's, on that network.
    :param configures_itself: whether its link has no address before it takes one itself.
    """

    def __init__(
        self,
        runner: Runner,
        inherited: Mapping[str, str],
        network: ClusterNetwork,
        place: Place,
        *,
        root_is_machine_root: bool = False,
        configures_itself: bool = False,
    ) -> None:
        self._runner = runner
        self._network = network
        self._place = place
        self._link = _link(network, place, configures_itself=configures_itself)
        self._interface = f"port{network.places.index(place)}"
        self._inner = NspawnStrategy(
            runner,
            inherited,
            addresses=lambda _host: self._link,
            root_is_machine_root=root_is_machine_root,
        )

    def launch(
        self,
        spec: MachineSpec,
        console: Console,
        stack: contextlib.ExitStack,
        *,
        deadline: Deadline,
    ) -> Launched:
        """Start a container; see
        :class:`~pytest_nixos.machine.container.strategy.ContainerStrategy`.
        """
        launched = self._inner.launch(spec, console, stack, deadline=deadline)

        def join(leader_pid: int) -> Callable[[], None]:
            self._inner.address(leader_pid, launched.outside_pid, self._link)
            self._join(launched.outside_pid, leader_pid)
            return lambda: None

        return dataclasses.replace(
            launched,
            outside_pid=self._network.stranger.pid,
            interface=self._interface,
            on_created=join,
        )

    def plug(self, *, connected: bool) -> None:
        """Give or take the container's carrier."""
        state = "up" if connected else "down"
        self._run(port_argv(self._network.stranger.pid, self._interface, state))

    def _join(self, outside_pid: int, leader_pid: int) -> None:
        interface, pid = self._interface, self._network.stranger.pid
        for argv in join_argv(outside_pid, pid, interface):
            self._run(argv)
        in_network_of(leader_pid, lambda: plain_frames(GUEST_INTERFACE))
        heard = in_network_of(pid, lambda: raw_socket(interface))
        self._network.switch.add_interface(port_name(self._place), heard)

    def _run(self, argv: Sequence[str]) -> None:
        done = self._runner.run(argv, deadline=Deadline.after(_SHORT_S))
        if done.exit_status != 0:
            raise MachineError(
                f"{' '.join(argv[2:])}: {done.stderr_text.strip()}",
                remedy="look at the console: the container has probably ended",
            )


def join_argv(outside_pid: int, network_pid: int, interface: str) -> tuple[tuple[str, ...], ...]:
    """Return the commands that move the outer end of a link to a network's namespace, where it
    says nothing of its own.
    """
    return (
        link_argv(outside_pid, OUTSIDE_INTERFACE, "down"),
        link_argv(outside_pid, OUTSIDE_INTERFACE, "name", interface),
        link_argv(outside_pid, interface, "netns", str(network_pid)),
        link_argv(network_pid, interface, "addrgenmode", "none"),
        link_argv(network_pid, interface, "arp", "off"),
        port_argv(network_pid, interface, "up"),
    )


def port_argv(network_pid: int, interface: str, state: str) -> tuple[str, ...]:
    """Return the command that switches a port ``up`` or ``down``."""
    return link_argv(network_pid, interface, state)


def _link(network: ClusterNetwork, place: Place, *, configures_itself: bool) -> LinkAddresses:
    return LinkAddresses(
        outside=network.outside,
        guest=place.address if place.is_leased and not configures_itself else None,
        target=place.address.ip,
        hardware=place.card.hardware,
    )
