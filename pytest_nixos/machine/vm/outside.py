"""Strangers beside a VM: places of ours on each of QEMU's user networks, from which its ports are tried."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Self

import msgspec

from pytest_nixos.errors import MachineError, TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.capabilities import PortState
from pytest_nixos.machine.command import Transport
from pytest_nixos.machine.network.guest_address import OuterAddresses, ask_outer_addresses
from pytest_nixos.machine.network.held_journal import held_journal
from pytest_nixos.machine.network.prober import FrameProber
from pytest_nixos.machine.network.wire import FrameLink
from pytest_nixos.machine.survey import Survey, View
from pytest_nixos.machine.vm.plan import VmPlan

__all__ = ["VmOutside"]

_MEETING_S = 15.0


class VmOutside(msgspec.Struct, frozen=True, kw_only=True):
    """The networks of one start of a VM.

    :param name: of the host.
    :param by_network: our place on each, by its id; in the order of the VM's cards.
    """

    name: str
    by_network: Mapping[str, FrameProber]

    @classmethod
    def of(cls, plan: VmPlan) -> Self:
        """Make a place on each network; QEMU connects to them when it starts."""
        links = (FrameLink(plan.run_dir, number) for number, _ in enumerate(plan.networks))
        places = dict(zip(plan.networks, map(FrameProber, links), strict=True))
        return cls(name=plan.name, by_network=places)

    def probe_tcp(
        self, transport: Transport, ports: Sequence[int], *, deadline: Deadline
    ) -> Mapping[int, PortState]:
        """Try TCP ports of the guest, on the first network where it is on several.

        :raises MachineError: if it is on none.
        """
        outer = ask_outer_addresses(self.name, transport, deadline=deadline)
        with self._standing() as first:
            for prober, addresses in self._places(first, outer, deadline):
                prober.face(addresses.v4)
                return prober.probe_tcp(ports, deadline=deadline)
        raise self._on_no_network()

    def survey(
        self, transport: Transport, wanted: Survey, *, deadline: Deadline
    ) -> tuple[View, ...]:
        """Try what `wanted` names by both families, on each network that the guest has an address on.

        :raises MachineError: if it is on none.
        """
        outer = ask_outer_addresses(self.name, transport, deadline=deadline)
        found: list[View] = []
        with held_journal(transport, deadline=deadline), self._standing() as first:
            for prober, addresses in self._places(first, outer, deadline):
                found += prober.survey(wanted, addresses, deadline=deadline)
        if not found:
            raise self._on_no_network()
        return tuple(found)

    def first_network(self, transport: Transport, *, deadline: Deadline) -> tuple[str, IPv4Address]:
        """Return the id of the first network, and the guest's address there.

        :raises MachineError: if it is on none.
        """
        outer = ask_outer_addresses(self.name, transport, deadline=deadline)
        if not self.by_network:
            raise self._on_no_network()
        return next(iter(self.by_network)), outer[0].v4.ip

    def _places(
        self, first: FrameProber, outer: Sequence[OuterAddresses], deadline: Deadline
    ) -> Iterator[tuple[FrameProber, OuterAddresses]]:
        """Say who of our strangers stands beside which interface."""
        if len(self.by_network) == 1:
            yield first, outer[0]
            return
        left = list(self.by_network.values())
        for addresses in outer:
            for prober in left:
                if prober.stands_beside(addresses, deadline=deadline.within(_MEETING_S)):
                    left.remove(prober)
                    yield prober, addresses
                    break

    @contextlib.contextmanager
    def _standing(self) -> Iterator[FrameProber]:
        if not self.by_network:
            raise MachineError(
                f"{self.name}: its run script has no user network to stand on",
                remedy="keep virtualisation.qemu.networkingOptions of the host as qemu-vm.nix sets it",
            )
        try:
            yield next(iter(self.by_network.values()))
        except TransportError as err:
            # The channel is fine; only the guest's network is not what a stranger needs.
            raise MachineError(err.message, remedy=err.remedy) from err

    def _on_no_network(self) -> MachineError:
        return MachineError(
            f"{self.name}: the guest is on none of its {len(self.by_network)} networks",
            remedy="look at `ip address` in the guest: do its network cards have their addresses?",
        )
