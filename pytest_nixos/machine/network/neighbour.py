"""A guest as somebody on its wire sees it, who answers its questions for a network card of ours."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Interface

import msgspec

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

__all__ = ["Ends", "Neighbour"]

# Locally administered; the last two bytes number the fences.
_MAC = b"\x02\x6e\x78\x73"
_STRANGER_SUFFIX = 0x6E78_7361
_FENCE_AGAIN_S = 2.0


class Ends(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses that packets of one family go between.

    :param own: ours.
    :param peer: the guest's.
    """

    own: Address
    peer: Address


class Neighbour:
    """The guest as seen on the wire; answers its questions for our network card."""

    def __init__(self, link: Wire, *, guest: IPv4Address, stranger: IPv4Address) -> None:
        self.link = link
        self.guest = guest
        self.stranger = stranger
        self.v4 = Ends(own=stranger, peer=guest)
        self.own_mac = _MAC + b"\0\0"
        self.mac = bytes(6)
        self._own_v6: IPv6Address | None = None
        self._fence = self._answered = secrets.randbelow(1 << 15)

    def speak_ipv6(self, guest: IPv6Interface) -> Ends:
        """Take an address on the guest's network of IPv6; fences stay ARP's, which no packet filter
        of IP drops.
        """
        self._own_v6 = IPv6Address(int(guest.network.network_address) + _STRANGER_SUFFIX)
        return Ends(own=self._own_v6, peer=guest.ip)

    @property
    def macs(self) -> tuple[bytes, bytes]:
        """Receiver and sender of our frames."""
        return self.mac, self.own_mac

    def send_fence(self, deadline: Deadline) -> int:
        """Ask for the guest's address; return the question's number for :meth:`frames_until`."""
        self._fence = (self._fence + 1) & 0xFFFF
        asker = _MAC + self._fence.to_bytes(2, "big")
        self.link.send([arp_request(asker, self.stranger, self.guest)], deadline=deadline)
        return self._fence

    def frames_until(self, fence: int, deadline: Deadline) -> Iterator[Frame]:
        """Give what comes until the guest has answered `fence` or a later one; what was lost is asked
        again.

        :raises TransportError: if it does not by `deadline`.
        """
        again_s = _FENCE_AGAIN_S / 4
        while True:
            turn = deadline.within(again_s)
            while not turn.expired and not self._has_answered(fence):
                for frame in self._frames(turn):
                    if isinstance(frame, ArpMessage):
                        self._note_answer(frame)
                    elif not isinstance(frame, NeighbourQuestion):
                        yield frame
            if self._has_answered(fence):
                return
            if deadline.expired:
                raise TransportError(
                    f"no guest answers at {self.guest} on its network (limit {deadline.limit_s:g} s)",
                    remedy="look at the guest's addresses (ip address); probing needs IPv4 by DHCP, or"
                    " the address that the host declares",
                )
            again_s = min(2 * again_s, _FENCE_AGAIN_S)
            self.send_fence(deadline)

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
                if frame.target == self._own_v6:
                    told = neighbour_answer(self.own_mac, frame.target, frame)
                    self.link.send([told], deadline=span.within(_FENCE_AGAIN_S))
            elif frame is not None:
                yield frame

    def _note_answer(self, message: ArpMessage) -> None:
        if not message.is_reply or message.sender != self.guest:
            return
        self.mac = message.sender_mac
        if message.target_mac[:4] == _MAC:
            number = int.from_bytes(message.target_mac[4:], "big")
            # Neither an answer to an older question nor one to somebody else.
            if 0 < (number - self._answered) & 0xFFFF <= (self._fence - self._answered) & 0xFFFF:
                self._answered = number

    def _has_answered(self, fence: int) -> bool:
        return (self._answered - fence) & 0xFFFF < 1 << 15
