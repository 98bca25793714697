from typing import Any

import pytest

from pytest_nixos.nix.command.metadata import (
    content_identity,
    input_by_url,
    input_names,
    source_path,
    source_paths,
    subfolder,
    unknown_inputs,
)

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


def test_the_store_path_of_a_source_is_the_one_that_nix_makes() -> None:
    # As `nix flake prefetch` of Nix 2.8.0 and 2.26.3 printed both.
    nar_hash = "sha256-Pi1iVlrp3AKOoCXmoprnMYpG4g7jXidJQiQ71eSBCIg="
    assert source_path(nar_hash) == "/nix/store/whzb4mhi0c85g01a5vmc0v5yqlz3g939-source"


@pytest.mark.parametrize(
    "odd", [None, 7, "", "sha256-", "sha256-!!!", "md5-x", "sha1-AAAA", "sha256-AAAA"]
)
def test_what_is_no_hash_of_a_source_has_no_path(odd: object) -> None:
    assert source_path(odd) is None


INPUTS = {
    "locks": {
        "root": "root",
        "nodes": {
            "root": {"inputs": {"nixpkgs": "nixpkgs_2", "secret": "secret", "same": ["nixpkgs"]}},
            "nixpkgs_2": {
                "locked": {"type": "github", "owner": "NixOS", "repo": "nixpkgs", "narHash": "sha256-Pi1iVlrp3AKOoCXmoprnMYpG4g7jXidJQiQ71eSBCIg="}
            },
            "secret": {
                "locked": {"type": "git", "url": "ssh://git@example.org/me/secret.git"},
                "inputs": {"deep": "deep", "back": "nixpkgs_2"},
            },
            "deep": {"locked": {"type": "path", "path": "/srv/deep"}},
        },
    }
}  # fmt: skip


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("git+ssh://git@example.org/me/secret.git", "secret"),
        ("git+ssh://git@example.org/me/secret.git?ref=main&rev=1", "secret"),
        ("github:NixOS/nixpkgs", "nixpkgs"),
        ("path:/srv/deep", "secret/deep"),
        ("git+ssh://git@example.org/me/other.git", None),
    ],
)
def test_an_input_is_known_by_where_it_comes_from(url: str, name: str | None) -> None:
    assert input_by_url(INPUTS, url) == name


def test_sources_of_inputs() -> None:
    assert source_paths(INPUTS) == {"/nix/store/whzb4mhi0c85g01a5vmc0v5yqlz3g939-source": "nixpkgs"}
