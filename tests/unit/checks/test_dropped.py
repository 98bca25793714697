"""An sshd that takes connections and ends each."""

from __future__ import annotations

import pytest

from checks.ssh.dropped import dying_words

CLOSED = "alice@it: no login was tried: Connection closed by 10.233.0.2 port 22"
DIED = "Nov 30 21:15:30 it sshd[347]: fatal: Missing privilege separation directory: /run/sshd"


@pytest.mark.parametrize(
    ("refusal", "journal", "died"),
    [
        (CLOSED, DIED, "Missing privilege separation directory: /run/sshd"),
        (CLOSED, "Nov 30 it sshd[1]: drop connection #1 from [10.0.0.1]:4 past MaxStartups", ""),
        (CLOSED, "Nov 30 it sshd[1]: fatal: Timeout before authentication for 10.0.0.1", ""),
        ("alice@it: no login was tried: Connection refused", DIED, ""),
    ],
)
def test_what_sshd_died_of(refusal: str, journal: str, died: str) -> None:
    assert dying_words(refusal, journal) == died
