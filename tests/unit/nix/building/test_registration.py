"""What a store's database knows of paths, read and written."""

from __future__ import annotations

import pytest

from pytest_nixos.errors import BuildError
from pytest_nixos.nix.building.registration import read_registration, requisites, written

TEXT = """\
/nix/store/a
sha256:00
10

2
/nix/store/a
/nix/store/b
/nix/store/b
sha256:11
20

0
/nix/store/c
sha256:22
30

1
/nix/store/gone
"""


def test_what_is_read_is_what_is_written() -> None:
    known = read_registration(TEXT)
    assert [known[name].nar_bytes for name in known] == [10, 20, 30]
    assert written(known.values()) == TEXT


def test_requisites_are_followed_once_each() -> None:
    assert requisites(read_registration(TEXT), "/nix/store/a") == ("/nix/store/a", "/nix/store/b")


def test_a_path_that_nobody_registered_is_named() -> None:
    with pytest.raises(BuildError, match="/nix/store/gone: is not among the paths"):
        requisites(read_registration(TEXT), "/nix/store/c")


@pytest.mark.parametrize("text", ["/nix/store/a\nsha256:00\n10\n\n2\n/nix/store/a\n", "what\n"])
def test_a_damaged_one_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"cut short|no store path"):
        read_registration(text)
