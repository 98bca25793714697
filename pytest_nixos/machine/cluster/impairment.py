"""What may befall a frame between two members of a network, one value for each kind of trouble.

An :class:`Impairment` is declared; a :class:`Rule` is one at work between named members, with what
it remembers and counts. Chance comes from a generator that is given, so that a run can be repeated.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address

from pytest_nixos.errors import SettingsError
from pytest_nixos.machine.cluster.tampering import Address, is_passed_on, with_wrong_answer

__all__ = ["Flight", "Impairment", "Rule"]

_ETHERNET_HEAD, _VLAN_TAG, _TAGGED = 14, 4, b"\x81\x00"
# The head of an Ethernet frame stays: a card drops what is not addressed to it, which would be loss.
_FIRST_BODY_BYTE = _ETHERNET_HEAD
_BITS_PER_KBIT = 1000
# A link of a given bandwidth queues so much before it drops, as a switch's port does.
_LONGEST_QUEUE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Impairment:
    """What happens to frames; shares are between 0 and 1.

    :param loss: share that vanishes.
    :param delay_s: seconds that each takes longer.
    :param jitter_s: at most so much more or less than `delay_s`; order is kept.
    :param duplication: share that arrives twice.
    :param reordering: share that is overtaken by what is sent within the next `reorder_s` seconds.
    :param corruption: share of which one bit is turned, behind the Ethernet header.
    :param kbit_s: bandwidth in kbit/s, ``None`` for no limit; what waits longer than a second is
        dropped.
    :param longest_packet: bytes of the longest packet that passes; longer ones vanish without a
        word, as in a black hole of the path MTU. ``None`` for no limit.
    :param own_addresses: where given, only packets that are for no address of these are met: those
        that a gateway is to pass on.
    :param wrong_address: what name servers' answers say in place of any IPv4 address.
    """

    loss: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    reorder_s: float = 0.2
    corruption: float = 0.0
    kbit_s: float | None = None
    longest_packet: int | None = None
    own_addresses: frozenset[Address] = frozenset()
    wrong_address: IPv4Address | None = None

    def __post_init__(self) -> None:
        for name in ("loss", "duplication", "reordering", "corruption"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise SettingsError(
                    f"{name} {share:g}: not a share", remedy="give a number from 0 to 1"
                )
        if min(self.delay_s, self.jitter_s, self.reorder_s) < 0:
            raise SettingsError(
                "a time below zero: no frame arrives before it was sent",
                remedy="give seconds from 0 on",
            )
        if any(limit is not None and limit <= 0 for limit in (self.kbit_s, self.longest_packet)):
            raise SettingsError("a link that carries nothing", remedy="use loss=1, or a partition")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """A frame on its way.

    :param due_s: when it arrives, on the monotonic clock.
    """

    frame: bytes
    due_s: float


class Rule:
    """An impairment at work between members of a network.

    :param sources: members whose frames it meets, ``None`` for all; `targets` likewise.
    """

    def __init__(
        self,
        impairment: Impairment,
        *,
        sources: Collection[str] | None,
        targets: Collection[str] | None,
        chance: random.Random | None = None,
    ) -> None:
        self.impairment = impairment
        self._sources = None if sources is None else frozenset(sources)
        self._targets = None if targets is None else frozenset(targets)
        self._chance = chance or random.Random()  # noqa: S311 - a fault, not a secret
        self._free_at_s = 0.0
        self._last_due_s = 0.0
        #: frames that it met, and of these: those that it did something to.
        self.met = 0
        self.touched = 0

    def applies(self, source: str, target: str) -> bool:
        """Whether it meets frames from one member to another."""
        return (self._sources is None or source in self._sources) and (
            self._targets is None or target in self._targets
        )

    def befall(self, flight: Flight) -> tuple[Flight, ...]:
        """Return what becomes of a frame: nothing, itself, changed or later, or two of it."""
        self.met += 1
        kept = self._kept(flight)
        self.touched += kept != (flight,)
        return kept

    def _kept(self, flight: Flight) -> tuple[Flight, ...]:
        what = self.impairment
        if what.own_addresses and not is_passed_on(flight.frame, what.own_addresses):
            return (flight,)
        if what.longest_packet is not None and _packet_size(flight.frame) > what.longest_packet:
            return ()
        if self._happens(what.loss):
            return ()
        frame = flight.frame
        if what.wrong_address is not None:
            frame = with_wrong_answer(frame, what.wrong_address)
        if self._happens(what.corruption):
            frame = _with_a_bit_turned(frame, self._chance)
        due_s = self._due_s(flight)
        if due_s is None:
            return ()
        arriving = Flight(frame=frame, due_s=due_s)
        return (arriving, arriving) if self._happens(what.duplication) else (arriving,)

    def _due_s(self, flight: Flight) -> float | None:
        what, due_s = self.impairment, flight.due_s
        if what.kbit_s is not None:
            begins_s = max(due_s, self._free_at_s)
            if begins_s - due_s > _LONGEST_QUEUE_S:
                return None
            due_s = begins_s + len(flight.frame) * 8 / (what.kbit_s * _BITS_PER_KBIT)
            self._free_at_s = due_s
        if what.delay_s or what.jitter_s:
            spread_s = self._chance.uniform(-what.jitter_s, what.jitter_s)
            due_s = max(due_s + max(0.0, what.delay_s + spread_s), self._last_due_s)
            self._last_due_s = due_s
        if self._happens(what.reordering):
            due_s += what.reorder_s
        return due_s

    def _happens(self, share: float) -> bool:
        return share > 0 and self._chance.random() < share


def _packet_size(frame: bytes) -> int:
    tag = _VLAN_TAG if frame[12:14] == _TAGGED else 0
    return len(frame) - _ETHERNET_HEAD - tag


def _with_a_bit_turned(frame: bytes, chance: random.Random) -> bytes:
    if len(frame) <= _FIRST_BODY_BYTE:
        return frame
    changed = bytearray(frame)
    changed[chance.randrange(_FIRST_BODY_BYTE, len(frame))] ^= 1 << chance.randrange(8)
    return bytes(changed)
