from typing import Any

import pytest

from pytest_nixos.nix.metadata import content_identity, input_names, subfolder, unknown_inputs

NODES: dict[str, Any] = {
    "root": {"inputs": {"nixpkgs": "nixpkgs", "home": "home", "none": []}},
    "nixpkgs": {"locked": {"narHash": "sha256-a"}},
    "home": {"locked": {"rev": "b"}, "inputs": {"nixpkgs": ["nixpkgs"], "utils": "utils"}},
    "utils": {"locked": {"narHash": "sha256-c"}},
}


def metadata(locked: dict[str, Any] | None = None, **nodes: Any) -> dict[str, Any]:
    return {
        "locked": {"narHash": "sha256-x"} if locked is None else locked,
        "locks": {"root": "root", "nodes": {**NODES, **nodes}},
    }


def test_a_flake_that_is_locked_throughout_has_an_identity() -> None:
    one, other = metadata(), metadata(utils={"locked": {"narHash": "sha256-d"}})
    assert content_identity(one) == content_identity(metadata())
    assert content_identity(one) != content_identity(other)
    assert content_identity(one) != content_identity(metadata({"narHash": "sha256-y"}))


@pytest.mark.parametrize(
    "loose",
    [
        metadata({"type": "git", "dirtyRev": "x-dirty"}),
        metadata(utils={"locked": {"type": "path", "path": "/x"}}),
        metadata(utils={"locked": {"path": "./x"}}),
        {},
        {"locked": None, "locks": {}},
    ],
)
def test_anything_that_is_not_fixed_has_none(loose: dict[str, Any]) -> None:
    assert content_identity(loose) is None


def test_a_relative_input_is_part_of_its_parent() -> None:
    inside = {"locked": {"type": "path", "path": "./sub"}, "parent": []}
    assert content_identity(metadata(utils=inside)) is not None


def test_inputs() -> None:
    assert input_names(metadata()) == ("home", "nixpkgs", "none")
    assert input_names({}) == ()


def test_overrides_are_looked_up_through_nested_inputs_and_follows() -> None:
    names = ["nixpkgs", "home/utils", "home/nixpkgs", "none", "nixpksg", "home/x", "nixpkgs/y", ""]
    assert unknown_inputs(metadata(), names) == ("nixpksg", "home/x", "nixpkgs/y", "")


def test_a_flake_lies_in_a_folder_of_its_repository() -> None:
    assert subfolder({"locked": {"dir": "hosts/lab"}}) == "hosts/lab"
    assert subfolder({"locked": {}, "original": {"dir": "lab"}}) == "lab"
    assert subfolder({"locked": {"type": "path"}}) == ""
