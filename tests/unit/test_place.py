"""How a place is told."""

import pytest

from pytest_nixos.place import How, Place


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (Place(option="a", how=How.SET, file="x.nix", line=3), "x.nix:3 sets a"),
        (Place(option="a", how=How.SET), "an unknown file sets a"),
        (
            Place(option="a", how=How.SET, file="x.nix", priority="mkForce"),
            "x.nix sets a, by mkForce",
        ),
        (
            Place(option="a", how=How.DEFAULT, file="y.nix", source="nixpkgs"),
            "a is not set; the default comes from nixpkgs/y.nix",
        ),
        (Place(option="a", how=How.UNSET), "a is not set, and has no default"),
        (Place(option="", how=How.TEXT, file="x.nix", line=3), "x.nix:3"),
        (
            Place(option="", how=How.HOST, file="flake.nix", line=3),
            "flake.nix:3 (the host's own entry)",
        ),
    ],
)
def test_place_in_words(place: Place, words: str) -> None:
    assert place.words == words


def test_file_of_an_input_is_not_the_users_own() -> None:
    assert not Place(option="a", how=How.SET, file="y.nix", source="nixpkgs").own
    assert Place(option="a", how=How.SET, file="y.nix").own
