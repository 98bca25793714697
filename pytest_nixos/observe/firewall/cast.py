"""To whom a packet goes."""

from __future__ import annotations

import enum

__all__ = ["Cast"]


class Cast(enum.Enum):
    """Whom a packet is sent to, with the kernel's number for it; ``PACKET_*`` of linux/if_packet.h."""

    UNICAST = 0
    BROADCAST = 1
    MULTICAST = 2
