"""Sets of whole numbers as sorted, disjoint spans: ports, protocols, addresses, marks.

Plain tuples, since one ruleset is cut into thousands of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv6Address,
    ip_address,
    summarize_address_range,
)

__all__ = [
    "Spans",
    "cut",
    "joined",
    "listed_addresses",
    "listed_numbers",
    "meet",
    "only",
    "parse_network",
    "whole",
]

Spans = tuple[tuple[int, int], ...]

_SHOWN = 4


def only(*values: int) -> Spans:
    """Return the set of these numbers."""
    return joined((value, value) for value in values)


def whole(last: int) -> Spans:
    """Return all numbers up to `last`."""
    return ((0, last),)


def joined(spans: Iterable[tuple[int, int]]) -> Spans:
    """Sort spans and join those that touch; a span that ends before it begins is empty."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if last < first:
            continue
        if found and first <= found[-1][1] + 1:
            if last > found[-1][1]:
                found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return tuple(found)


def meet(left: Spans, right: Spans) -> Spans:
    """Return what both hold."""
    if left == right:
        return left
    found = []
    i = j = 0
    while i < len(left) and j < len(right):
        first = max(left[i][0], right[j][0])
        last = min(left[i][1], right[j][1])
        if first <= last:
            found.append((first, last))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return tuple(found)


def cut(left: Spans, right: Spans) -> Spans:
    """Return what is in `left` only."""
    found = []
    j = 0
    for first, last in left:
        begin = first
        while j < len(right) and right[j][1] < begin:
            j += 1
        k = j
        while k < len(right) and right[k][0] <= last:
            if right[k][0] > begin:
                found.append((begin, right[k][0] - 1))
            begin = right[k][1] + 1
            k += 1
        if begin <= last:
            found.append((begin, last))
    return tuple(found)


def listed_numbers(spans: Spans) -> str:
    """Write for people: ``22, 8000-8010``."""
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def listed_addresses(spans: Spans, family: int) -> str:
    """Write addresses as prefixes, at most a few of them.

    :param family: 4 or 6.
    """
    words: list[str] = []
    for first, last in spans:
        if len(words) > _SHOWN:
            break
        words += _prefixes(first, last, family)
    shown = words[:_SHOWN]
    return ", ".join(shown) + (" and others" if len(words) > _SHOWN else "")


def _prefixes(first: int, last: int, family: int) -> list[str]:
    if family == 4:
        nets = [str(n) for n in summarize_address_range(IPv4Address(first), IPv4Address(last))]
        single, ends = "/32", (str(IPv4Address(first)), str(IPv4Address(last)))
    else:
        nets = [str(n) for n in summarize_address_range(IPv6Address(first), IPv6Address(last))]
        single, ends = "/128", (str(IPv6Address(first)), str(IPv6Address(last)))
    if len(nets) > 2:
        return [f"{ends[0]}-{ends[1]}"]
    return [net.removesuffix(single) for net in nets]


def parse_network(text: str) -> Spans:
    """Read ``10.0.0.0/8``, ``fe80::1``, ``10.0.0.0/255.0.0.0`` or ``10.0.0.1-10.0.0.9``.

    :raises ValueError: if it is none of these, or a mask with holes.
    """
    if "-" in text:
        first, last = (int(ip_address(part.strip())) for part in text.split("-", 1))
        return joined([(first, last)])
    address, slash, length = text.partition("/")
    start = ip_address(address)
    bits = start.max_prefixlen
    if not slash:
        return only(int(start))
    if not length.isdecimal():
        mask = int(ip_address(length))
        size = bits - mask.bit_count()
        if mask != ((1 << bits) - 1) ^ ((1 << size) - 1):
            raise ValueError(f"{text}: a mask with holes")
    else:
        size = bits - int(length)
    if not 0 <= size <= bits:
        raise ValueError(f"{text}: no such prefix length")
    begin = int(start) >> size << size
    return ((begin, begin + (1 << size) - 1),)
