"""What is said of an array of mdraid: whole, short of members, being rebuilt, or not there at all."""

from __future__ import annotations

import pytest

from checks.filesystem.test_arrays import _told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("raid5", "3", "0", "idle", "clean"), ""),
        (("raid1", "2", "0", "check", "active"), ""),
        (("raid0", "2", "0", "idle", "clean"), ""),
        (("raid5", "3", "1", "idle", "clean"), "(raid5) lacks 1 of 3 members"),
        (("raid1", "2", "1", "recover", "active"), "(raid1) lacks 1 of 2 members, and is being rebuilt"),
        (("raid6", "6", "0", "idle", "inactive"), "(raid6) is inactive"),
        (("raid0", "2", "0", "idle", "broken"), "(raid0) is broken"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_array(words: tuple[str, str, str, str, str], told: str) -> None:
    assert _told(*words) == told
