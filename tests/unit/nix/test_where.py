"""From what the module system tells to places in the user's flake."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.nix.command.metadata import source_path
from pytest_nixos.nix.command.refs import FlakeRef, HostRef
from pytest_nixos.nix.config.host_facts import parse_host_config
from pytest_nixos.nix.config.places import Places
from pytest_nixos.nix.where import Whereabouts
from pytest_nixos.place import How, Place
from tests.unit.host_documents import document

HASH = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
OWN = "/nix/store/11111111111111111111111111111111-source"
NIXPKGS = source_path(HASH)
METADATA = {
    "path": OWN,
    "locks": {
        "root": "root",
        "nodes": {
            "root": {"inputs": {"nixpkgs": "nixpkgs"}},
            "nixpkgs": {"locked": {"narHash": HASH}},
        },
    },
}
FLAKE = """{
  outputs = { nixpkgs, ... }: {
    nixosConfigurations.web = nixpkgs.lib.nixosSystem {
      modules = [ ./hosts/web.nix { boot.kernel.sysctl."a.b" = 1; } ];
    };
  };
}
"""
WEB = """{ lib, ... }: {
  services.openssh.enable = true;
  services.x = { port = 1; };
}
"""
DECLARED = f"{NIXPKGS}/nixos/modules/sshd.nix"


def definition(file: str, **more: Any) -> dict[str, Any]:
    return {"file": file, "priority": None, "position": None, "members": [], **more}


def told(*definitions: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "rest": [],
        "priority": 100,
        "declared": [DECLARED],
        "declaredAt": [],
        "definitions": list(definitions),
        **more,
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "hosts" / "db").mkdir(parents=True)
    (tmp_path / "flake.nix").write_text(FLAKE)
    (tmp_path / "hosts" / "web.nix").write_text(WEB)
    (tmp_path / "hosts" / "db" / "default.nix").write_text(WEB)
    return tmp_path


def whereabouts(root: Path, answers: Mapping[str, Any], folder: str = "") -> Whereabouts:
    host = parse_host_config(
        HostRef(FlakeRef("path:/f"), "web"),
        {**document(), "where": list(answers.values())},
        option_paths=(),
        where=tuple(answers),
    )
    return Whereabouts(host, trees=Places.of(METADATA), root=root, folder=folder)


def test_definition_is_found_in_its_file(root: Path) -> None:
    where = whereabouts(root, {"services.openssh.enable": told(definition(f"{OWN}/hosts/web.nix"))})
    (place,) = where.of_option("services.openssh.enable")
    assert (place.spot, place.column) == ("hosts/web.nix:2", 3)
    assert place.words == "hosts/web.nix:2 sets services.openssh.enable"


def test_folder_of_a_module_is_its_default_nix(root: Path) -> None:
    where = whereabouts(root, {"services.openssh.enable": told(definition(f"{OWN}/hosts/db"))})
    (place,) = where.of_option("services.openssh.enable")
    assert place.spot == "hosts/db/default.nix:2"


@pytest.mark.parametrize("file", [f"{NIXPKGS}/flake.nix", "<unknown-file>"])
def test_module_written_in_flake_nix_is_found_there(root: Path, file: str) -> None:
    path = 'boot.kernel.sysctl."a.b"'
    where = whereabouts(root, {path: told(definition(file))})
    (place,) = where.of_option(path)
    assert place.spot == "flake.nix:4"


def test_position_that_nix_tells_needs_no_file(root: Path) -> None:
    at = {"file": f"{NIXPKGS}/nixos/x.nix", "line": 7, "column": 2}
    where = whereabouts(
        root, {"a.b": told(definition(f"{OWN}/hosts/web.nix", position=at, priority=50))}
    )
    (place,) = where.of_option("a.b")
    assert (place.spot, place.own) == ("nixpkgs/nixos/x.nix:7", False)
    assert place.words.endswith("sets a.b, by mkForce")


def test_line_that_is_not_there_is_not_guessed(root: Path) -> None:
    where = whereabouts(root, {"a.b.c": told(definition(f"{OWN}/hosts/web.nix"))})
    (place,) = where.of_option("a.b.c")
    assert (place.file, place.line) == ("hosts/web.nix", None)


def test_default_is_told_with_where_it_comes_from(root: Path) -> None:
    where = whereabouts(root, {"a.b": told(definition(DECLARED), priority=1500)})
    (place,) = where.of_option("a.b")
    assert place.how is How.DEFAULT
    assert place.words == ("a.b is not set; the default comes from nixpkgs/nixos/modules/sshd.nix")


def test_option_without_default_is_not_set(root: Path) -> None:
    (place,) = whereabouts(root, {"a.b": told(priority=None)}).of_option("a.b")
    assert place == Place(option="a.b", how=How.UNSET)


def test_own_files_come_first(root: Path) -> None:
    both = told(definition(DECLARED), definition(f"{OWN}/hosts/web.nix"))
    where = whereabouts(root, {"services.openssh.enable": both})
    assert [p.own for p in where.of_option("services.openssh.enable")] == [True, False]


def test_member_and_a_key_in_it(root: Path) -> None:
    spot = {"file": f"{OWN}/hosts/web.nix", "line": 3, "column": 3}
    where = whereabouts(
        root,
        {"services.*": told(definition("", members=[{"name": "x", **spot}]))},
    )
    assert [p.spot for p in where.of_member("services", "x")] == ["hosts/web.nix:3"]
    (inner,) = where.of_member("services", "x", ("port",))
    assert (inner.option, inner.column) == ("services.x.port", 18)
    assert where.of_member("services", "y") == ()


def test_flake_in_a_folder_is_the_root_of_its_places(root: Path) -> None:
    (root / "sub").mkdir()
    (root / "sub" / "a.nix").write_text("{ a.b = 1; }")
    where = whereabouts(root, {"a.b": told(definition(f"{OWN}/sub/a.nix"))}, folder="sub")
    assert [p.spot for p in where.of_option("a.b")] == ["a.nix:1"]


def test_host_itself_has_a_place(root: Path) -> None:
    place = whereabouts(root, {}).of_host
    assert place is not None
    assert (place.how, place.spot) == (How.HOST, "flake.nix:3")


def test_place_survives_json() -> None:
    place = Place(option="a", how=How.SET, file="x.nix", line=1, column=2, priority="mkForce")
    assert Place.from_json(place.to_json()) == place
