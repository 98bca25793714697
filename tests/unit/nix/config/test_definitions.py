"""What the module system tells of an option's definitions."""

from typing import Any

import pytest

from pytest_nixos.nix.config.definitions import Definitions, Spot, priority_name

SSHD = "/nix/store/00000000000000000000000000000000-source/nixos/modules/sshd.nix"
OWN = "/nix/store/11111111111111111111111111111111-source/hosts/web.nix"


def answer(*definitions: dict[str, Any], priority: int | None = 100, **more: Any) -> dict[str, Any]:
    return {
        "rest": [],
        "priority": priority,
        "declared": [SSHD],
        "declaredAt": [],
        "definitions": [
            {"file": OWN, "priority": None, "position": None, "members": [], **d}
            for d in definitions
        ],
        **more,
    }


def test_default_of_the_option_decides_nothing() -> None:
    assert Definitions.parse(answer({"file": SSHD}, priority=1500)).deciding == ()
    assert Definitions.parse(answer(priority=None)).deciding == ()


def test_default_that_another_module_gives_is_a_definition() -> None:
    found = Definitions.parse(answer({"file": OWN}, priority=1500))
    assert [d.spot.file for d in found.deciding] == [OWN]


def test_definition_beside_the_declaration_counts_where_it_is_no_default() -> None:
    found = Definitions.parse(answer({"file": SSHD}, priority=1000))
    assert [found.priority_of(d) for d in found.deciding] == ["mkDefault"]


def test_only_the_strongest_inside_a_value_decides() -> None:
    position = {"file": OWN, "line": 3, "column": 5}
    found = Definitions.parse(
        answer({"priority": 1000}, {"priority": 50, "position": position}, {"priority": None})
    )
    assert [(d.spot.line, found.priority_of(d)) for d in found.deciding] == [(3, "mkForce")]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (f"{OWN}, via option flake.nixosModules.web", OWN),
        (f"{OWN}#nixosModules.web", OWN),
        (OWN, OWN),
        ("<unknown-file>", "<unknown-file>"),
    ],
)
def test_file_is_what_stands_before_how_it_came_in(name: str, file: str) -> None:
    assert Spot.parse(None, name).file == file


def test_priorities_are_told_as_they_are_written() -> None:
    assert [priority_name(p) for p in (100, 50, 1000, 10, 75)] == [
        "",
        "mkForce",
        "mkDefault",
        "mkVMOverride",
        "mkOverride 75",
    ]
