"""An sshd that takes connections and ends each before anybody could log in."""

from __future__ import annotations

import re

__all__ = ["JOURNAL", "dying_words"]

#: Prints what sshd said last, with and without socket activation; since OpenSSH 9.8 sessions have a program of their own.
JOURNAL = (
    "journalctl --boot --quiet --no-pager --lines=40 --identifier=sshd --identifier=sshd-session"
)

# What ssh says where a connection ended before the keys were exchanged.
_ENDED = re.compile(r"Connection (?:closed|reset) by|closed by remote host")
# A client that is silent or goes away is no fault of sshd's.
_FATAL = re.compile(r"\bfatal: (?!Timeout|Read from|Write to|monitor_read|mm_)(?P<why>.+)")


def dying_words(refusal: str, journal: str) -> str:
    """Return what sshd died of, ``""`` where the connection ended for another reason or nobody knows.

    Who was refused too often is dropped as well (``PerSourcePenalties``, ``MaxStartups``): of those sshd says nothing fatal.

    :param refusal: what ssh said last.
    :param journal: as :data:`JOURNAL` prints it.
    """
    if not _ENDED.search(refusal):
        return ""
    found = [match["why"] for line in journal.splitlines() if (match := _FATAL.search(line))]
    return found[-1] if found else ""
