"""Files of /etc beside what is declared of them."""

from __future__ import annotations

import pytest

from checks.filesystem.test_etc import differing


@pytest.mark.parametrize(
    ("declared", "found", "told"),
    [
        (("0600", "root", "root"), "600 root 0 root 0", ""),
        (("0440", "+0", "+30000"), "440 root 0 UNKNOWN 30000", ""),
        (("0600", "svcc", "root"), "600 root 0 root 0", "belongs to root, declared svcc"),
        (
            ("0640", "root", "web"),
            "644 root 0 root 0",
            "has mode 644, declared 0640 and has the group root, declared web",
        ),
        (("0600", "root", "root"), "", "is not there"),
    ],
)
def test_what_a_file_has_in_place_of_what_is_declared(
    declared: tuple[str, str, str], found: str, told: str
) -> None:
    assert differing(*declared, found) == told
