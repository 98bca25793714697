"""What a stranger tries from outside, and what it sees: values that travel between checks and
backends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol, runtime_checkable

import msgspec

from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.capabilities import PortState

__all__ = ["Survey", "Surveyable", "View"]


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What is tried.

    :param tcp: ports that get one SYN each.
    :param patient_tcp: those of them that get more where they are silent, as services that are busy
        may need.
    :param udp: ports that get an empty datagram; Linux answers only about one closed port a second,
        so few.
    """

    tcp: Sequence[int] = ()
    patient_tcp: Sequence[int] = ()
    udp: Sequence[int] = ()


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What a stranger saw by one family on one of the guest's networks.

    `stranger` and `guest` are the addresses that packets went between, ``None`` where nobody knows
    them.

    :param interface: the guest's name of its interface there.
    :param family: ``ip`` or ``ip6``.
    :param udp: ``FILTERED`` also where a service is silent.
    :param own_frames: whether the packets were exactly those that a prober of ours builds.
    """

    interface: str
    family: str
    stranger: IPv4Address | IPv6Address | None = None
    guest: IPv4Address | IPv6Address | None = None
    tcp: Mapping[int, PortState] = msgspec.field(default_factory=dict)
    udp: Mapping[int, PortState] = msgspec.field(default_factory=dict)
    answers_ping: bool = False
    own_frames: bool = True


@runtime_checkable
class Surveyable(Protocol):
    """A started machine whose network a stranger of ours can stand on."""

    def survey(self, wanted: Survey, *, deadline: Deadline) -> tuple[View, ...]:
        """Try what `wanted` names, by each family, on each network that the guest shares with us.

        :raises MachineError: if the guest is not on its network, or time ran out.
        """
        ...
