"""Values that rules and packets are drawn from: few, so that rules hit."""

from __future__ import annotations

from hypothesis import strategies as st

__all__ = ["INNER", "INTERFACES", "NETS", "OWN", "PORTS", "SENDERS", "SOURCES", "port"]

PORTS = (22, 53, 80, 443, 1000, 8080, 8123, 40000, 65535)
#: Honest senders on either link: the way back to them is the way that they come.
SENDERS = {
    4: (("10.1.2.3", "10.200.0.1", "10.77.0.9"), ("192.168.5.5", "203.0.113.7", "10.78.0.9")),
    6: (("fd77::9", "fd00:1::1"), ("2001:db8::5", "2001:db8:1::5")),
}
SOURCES = {family: (*first, *second) for family, (first, second) in SENDERS.items()}
NETS = {
    4: ("10.0.0.0/8", "10.1.0.0/16", "192.168.0.0/16", "203.0.113.0/24", "10.77.0.0/24"),
    6: ("fd00::/8", "2001:db8::/32", "2001:db8::/48"),
}
#: The host's addresses on eth0 and eth1, and who stands behind it.
OWN = {4: ("10.77.0.2", "10.78.0.2"), 6: ("fd77::2", "fd78::2")}
INNER = {4: "10.79.0.2", 6: "fd79::2"}
INTERFACES = ("eth0", "eth1", "eth*", "wg0")


def _span(ends: tuple[int, int]) -> str:
    return f"{min(ends)}-{max(ends)}" if ends[0] != ends[1] else str(ends[0])


def port() -> st.SearchStrategy[str]:
    """A port or a range, as nft writes it."""
    one = st.sampled_from(PORTS)
    return st.one_of(one.map(str), st.tuples(one, one).map(_span))
