"""A guest as somebody on its wire sees it, who answers its questions for a network card of ours."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Interface

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.network.frames import (
    Address,
    ArpMessage,
    Frame,
    NeighbourQuestion,
    arp_reply,
    arp_request,
    neighbour_answer,
    parse_frame,
)
from pytest_nixos.machine.network.wire import Wire

__all__ = ["Neighbour"]

# Locally administered; the last two bytes number the fences.
_MAC = b"\x02\x6e\x78\x73"
_STRANGER_SUFFIX = 0x6E78_7361
_FENCE_AGAIN_S = 2.0


class Neighbour:
    """The guest as seen on the wire; answers its questions for our network card.

    `own` and `peer` are the addresses that probes go between, ours and the guest's.
    """

    def __init__(self, link: Wire, *, guest: IPv4Address, stranger: IPv4Address) -> None:
        self.own: Address = stranger
        self.peer: Address = guest
        self.link = link
        self.guest = guest
        self.stranger = stranger
        self.own_mac = _MAC + b"\0\0"
        self.mac = bytes(6)
        self._fence_numbers = itertools.count(secrets.randbelow(1 << 15))

    def speak_ipv6(self, guest: IPv6Interface) -> None:
        """Send probes by IPv6 from now on; fences stay ARP's, which no packet filter of IP
        drops.
        """
        self.peer = guest.ip
        self.own = IPv6Address(int(guest.network.network_address) + _STRANGER_SUFFIX)

    @property
    def macs(self) -> tuple[bytes, bytes]:
        """Receiver and sender of our frames."""
        return self.mac, self.own_mac

    def frames_until_fence(self, deadline: Deadline) -> Iterator[Frame]:
        """Ask for the guest's address and give what comes until it answers.

        :raises TransportError: if it does not by `deadline`.
        """
        again_s = _FENCE_AGAIN_S / 8
        while True:
            again_s = min(2 * again_s, _FENCE_AGAIN_S)
            fence_mac = _MAC + (next(self._fence_numbers) & 0xFFFF).to_bytes(2, "big")
            fence = arp_request(fence_mac, self.stranger, self.guest)
            self.link.send([fence], deadline=deadline)
            turn = deadline.within(again_s)
            while not turn.expired:
                for frame in self._frames(turn):
                    if isinstance(frame, NeighbourQuestion):
                        continue
                    if isinstance(frame, ArpMessage):
                        if self._answers(frame, fence_mac):
                            return
                    else:
                        yield frame
            if deadline.expired:
                raise TransportError(
                    f"no guest answers at {self.guest} on its network (limit {deadline.limit_s:g} s)",
                    remedy="look at the guest's addresses (ip address); probing needs IPv4 by DHCP, or"
                    " the address that the host declares",
                )

    def frames_for(self, span: Deadline) -> Iterator[Frame]:
        """Give what comes until `span` is over."""
        while not span.expired:
            for frame in self._frames(span):
                if not isinstance(frame, ArpMessage | NeighbourQuestion):
                    yield frame

    def _frames(self, span: Deadline) -> Iterator[Frame]:
        for raw in self.link.frames(limit_s=min(0.2, span.remaining_s)):
            frame = parse_frame(raw)
            if (
                isinstance(frame, ArpMessage)
                and not frame.is_reply
                and frame.target == self.stranger
            ):
                answer = arp_reply(self.own_mac, self.stranger, frame.sender_mac, frame.sender)
                self.link.send([answer], deadline=span.within(_FENCE_AGAIN_S))
            elif isinstance(frame, NeighbourQuestion):
                if frame.target == self.own:
                    told = neighbour_answer(self.own_mac, frame.target, frame)
                    self.link.send([told], deadline=span.within(_FENCE_AGAIN_S))
            elif frame is not None:
                yield frame

    def _answers(self, message: ArpMessage, fence_mac: bytes) -> bool:
        if not message.is_reply or message.sender != self.guest:
            return False
        self.mac = message.sender_mac
        return message.target_mac == fence_mac
