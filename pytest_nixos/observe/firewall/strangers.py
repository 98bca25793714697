"""Who strangers are: the packets that they can send, and how many of them a rule names."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_nixos.observe.firewall.boxes import count
from pytest_nixos.observe.firewall.cast import Cast
from pytest_nixos.observe.firewall.spans import (
    Spans,
    cut,
    joined,
    meet,
    only,
    parse_network,
    whole,
)

__all__ = ["are_few", "strangers_box"]

# No sender outside has these: this network, loopback, multicast, "limited broadcast"; RFC 6890.
_NO_SENDERS = {
    4: ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0-255.255.255.255"),
    6: ("::", "::1", "ff00::/8"),
}
_NO_TARGETS = {
    4: ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255"),
    6: ("::", "::1", "ff00::/8"),
}
_TO_ALL = "255.255.255.255"
_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
# Protocols of connections between two: Linux takes their packets only if they are for it alone.
_BETWEEN_TWO = only(6, 33, 132)
# What begins a connection: SYN, or SYN with ECE and CWR where the sender offers congestion
# notification (RFC 3168, 6.1.1; sysctl net.ipv4.tcp_ecn=1).
_BEGINS = only(0x02, 0xC2)
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_DONT_FRAGMENT = 0x4000
# What registries hand out; of IPv6 the half of "global unicast" that they use, IANA's list.
_PUBLIC = {4: "0.0.0.0/0", 6: "2000::/4"}
_FEW = 8  # at most one in so many senders is "named", more are everybody


def strangers_box(
    family: int, cast: Cast = Cast.UNICAST, broadcasts: Sequence[int] = ()
) -> dict[str, Spans]:
    """Return the class of packets that begin something: sent by an honest stranger to an address
    of the guest, or to all who listen.

    :param broadcasts: the broadcast addresses of the guest's networks.
    """
    bits = 32 if family == 4 else 128
    every = whole((1 << bits) - 1)
    box = {
        "family": only(family),
        "protocol": whole(255),
        "saddr": cut(every, joined(s for t in _NO_SENDERS[family] for s in parse_network(t))),
        "daddr": cut(every, joined(s for t in _NO_TARGETS[family] for s in parse_network(t))),
        "ethertype": only(_ETHERTYPES[family]),
        "pkttype": only(0),
        "tcp.flags": _BEGINS,
    }
    if family == 4:
        box |= {"ip.frag-off": only(0, _DONT_FRAGMENT), "ip.version": only(4)}
        box |= {"ip.hdrlength": only(5)}
    else:
        box |= {"ip6.version": only(6)}
    if cast is not Cast.UNICAST:
        box |= {"pkttype": only(cast.value), "protocol": cut(whole(255), _BETWEEN_TWO)}
        box["daddr"] = (
            parse_network(_MULTICAST[family])
            if cast is Cast.MULTICAST
            else joined([*parse_network(_TO_ALL), *((n, n) for n in broadcasts)])
        )
    return box


def are_few(senders: Spans, family: int) -> bool:
    """Whether these are some that a rule names, and not everybody or a large part of it."""
    public = parse_network(_PUBLIC[family])
    return count(meet(senders, public)) * _FEW <= count(public)
