"""Lines of ``/etc/hosts`` and ``/etc/resolv.conf`` whose address is none: the C library passes over
them without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

__all__ = ["unread_hosts", "unread_servers"]


def unread_hosts(text: str) -> Iterator[tuple[int, str]]:
    """Give each line of hosts(5) that names nobody.

    :return: line from 1, and words.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        address, *names = line.partition("#")[0].split() or [""]
        if names and not _is_address(address):
            yield number, f"{address} is no address: {', '.join(names)} has none by this line"


def unread_servers(text: str) -> Iterator[tuple[int, str]]:
    """Give each name server of resolv.conf(5) that nobody asks.

    :return: line from 1, and words.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and not _is_address(words[1]):
            yield number, f"{words[1]} is no address, and no name server is asked for it"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
