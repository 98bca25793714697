"""Lines of udev's rules that udevd refuses, or of which it does a part: a key that is none, an owner
or a group that is not there.

Only those that a host writes itself: the rules of packages stand in the same directory, and name
accounts that only some hosts have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

__all__ = ["UDEV_RULES", "refused_by_udev"]

# nixos/modules/services/hardware/udev.nix: what services.udev.extraRules becomes.
UDEV_RULES = "/etc/udev/rules.d/99-local.rules"
_LINE = re.compile(rf"{re.escape(UDEV_RULES)}:(?P<line>\d+):? (?P<text>\S.*)")


def refused_by_udev(said: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    """Give each line with its reason.

    :param said: what udevd said.
    :return: file, line from 1, and words.
    """
    for match in filter(None, map(_LINE.fullmatch, said)):
        yield UDEV_RULES, int(match["line"]), match["text"]
