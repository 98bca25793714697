"""What is said of a session: PAM's refusal, an account that has expired, a shell that is not there."""

from __future__ import annotations

import pytest

from checks.users.test_sessions import _told


@pytest.mark.parametrize(
    ("status", "state", "there", "told"),
    [
        ("0", "open", "there", ""),
        ("224", "open", "there", "PAM refuses it"),
        ("1", "open", "there", "no session: exit status 1"),
        ("124", "open", "there", "it does not open within a minute"),
        ("0", "open", "missing", "its shell /bin/x is not there"),
        ("224", "open", "missing", "PAM refuses it, its shell /bin/x is not there"),
        ("224", "expired", "there", ""),
        ("0", "expired", "there", "the account has expired, and a session opens"),
    ],
)
def test_what_is_wrong_with_a_session(status: str, state: str, there: str, told: str) -> None:
    assert _told(status, state, there, "/bin/x") == told
