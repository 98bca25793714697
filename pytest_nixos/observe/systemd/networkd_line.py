"""What networkd says of a whole file or of a name in it: a device of no name or kind, a network of
nothing, a bridge, bond or VLAN that no file makes. It tells no line, and goes on without.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

__all__ = ["refused_by_networkd"]

_FILE = r"(?P<file>/etc/systemd/network/[^\s:\"]+\.(?:network|netdev))"
# src/network/networkd-network.c, networkd-network-bus.c and netdev/ of systemd 252 to 258.
_OF_FILE = re.compile(rf"{_FILE}: (?P<text>.*ignoring.*)")
_CONFIGURED = re.compile(rf"(?P<text>.*) configured in \"?{_FILE}\"?(?:, ignoring)?\.?")
_LINE = re.compile(r"(?P<file>/[^:]+):(?P<line>\d+):(?P<text>.*)")


def refused_by_networkd(
    said: Iterable[str], lines: Iterable[str]
) -> Iterator[tuple[str, int, str]]:
    """Give each file, or line of one, that networkd does without.

    :param said: what it said.
    :param lines: lines of its files, as ``grep -Hn`` prints them.
    :return: file, line from 1, and words; the first line where it names none.
    """
    written = [m for m in map(_LINE.fullmatch, lines) if m is not None]
    for text in said:
        found = _OF_FILE.fullmatch(text) or _CONFIGURED.fullmatch(text)
        if found is None:
            continue
        name = found["text"].split(" ")[0]
        places = (
            int(line["line"])
            for line in written
            if line["file"] == found["file"] and name in line["text"].partition("=")[2].split()
        )
        yield found["file"], next(places, 1), found["text"]
