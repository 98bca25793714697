"""Which options decide a control, and the places that a finding gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_nixos.nix.config.definitions import Definitions
from pytest_nixos.place import How, Place
from pytest_nixos.standards.judging.decides import MEMBERS, places_of, where_paths
from pytest_nixos.standards.load import load_catalogue
from pytest_nixos.subject import Subject

CATALOGUE = load_catalogue([])
HOST = Place(option="", how=How.HOST, file="flake.nix", line=1)


def at(option: str, line: int = 1, **more: Any) -> Place:
    return Place(option=option, how=How.SET, file="web.nix", line=line, **more)


@dataclass
class Fake:
    """Whereabouts of a table."""

    options: dict[str, tuple[Place, ...]] = field(default_factory=dict)
    members: dict[tuple[str, str], tuple[Place, ...]] = field(default_factory=dict)
    lines: dict[int, str] = field(default_factory=dict)
    texts: dict[str, tuple[Place, ...]] = field(default_factory=dict)
    values: dict[str, object] = field(default_factory=dict)
    known: bool = True
    of_host: Place = HOST

    def of_option(self, path: str) -> tuple[Place, ...]:
        return self.options.get(path, ())

    def of_member(self, path: str, name: str, below: tuple[str, ...] = ()) -> tuple[Place, ...]:
        return self.members.get((path, name), ())

    def of_key(self, path: str, key: str) -> tuple[Place, ...]:
        return self.options.get(f"{path}.{key}", ())

    def asked(self, path: str) -> Definitions | None:
        return None

    def value_of(self, path: str) -> object:
        return self.values.get(path)

    def written(self, path: str) -> tuple[Place, ...]:
        return self.texts.get(path, ())

    def in_source(self, file: str, line: int) -> tuple[Place, ...]:
        return (Place(option="", how=How.TEXT, file=file, line=line),)

    def line_at(self, place: Place) -> str:
        return self.lines.get(place.line or 0, "")


def places(control: str, fake: Fake, **more: Any) -> list[str]:
    told = {"remedy": "", "reason": "", "observed": None, **more}
    found = places_of(CATALOGUE.control(control), fake, **told)  # type: ignore[arg-type]
    return [place.spot for place in found]


def test_every_control_of_an_option_asks_for_it() -> None:
    paths = set(where_paths(CATALOGUE))
    assert set(MEMBERS) <= paths
    assert "services.openssh.settings.PermitRootLogin" in paths
    assert not [p for p in paths if p.startswith("systemd.services.") and p not in MEMBERS]
    assert not [p for p in paths if "<" in p or p.startswith("#")]


def test_declared_option_comes_before_the_host_itself() -> None:
    path = "services.openssh.settings.PermitRootLogin"
    assert places("SSH-001", Fake(options={path: (at(path, 7),)})) == ["web.nix:7"]


def test_host_itself_is_the_place_where_nothing_is_set() -> None:
    default = Place(option="a", how=How.DEFAULT, file="sshd.nix", source="nixpkgs", line=9)
    path = "services.openssh.settings.PermitRootLogin"
    assert places("SSH-001", Fake(options={path: (default,)})) == [
        "nixpkgs/sshd.nix:9",
        "flake.nix:1",
    ]


@pytest.mark.parametrize(
    ("line", "found"), [("x.y = 3;", ["flake.nix:1"]), ("x.y = 4;", ["web.nix:5"])]
)
def test_option_that_is_as_the_remedy_wants_decides_nothing(line: str, found: list[str]) -> None:
    fake = Fake(options={"x.y": (at("x.y", 5),)}, lines={5: line})
    assert places("BOOT-001", fake, remedy="x.y = 3;") == found


@pytest.mark.parametrize(
    ("reason", "found"),
    [
        ("vm.swapiness: declared 10, is missing", ["web.nix:9"]),
        # The finding's sentence names none: all that were looked at may decide.
        ("one of them is not in force", ["web.nix:3", "web.nix:4", "web.nix:5", "web.nix:6"]),
    ],
)
def test_of_many_keys_those_that_the_sentence_names_decide(reason: str, found: list[str]) -> None:
    """NixOS declares keys of its own: what was looked at names them all, those that are so too."""
    path = "boot.kernel.sysctl"
    keys = {"fs.a": 3, "kernel.b": 4, "kernel.c": 5, "net.d": 6, "vm.swapiness": 9}
    fake = Fake(
        options={f"{path}.{key}": (at(key, line),) for key, line in keys.items()},
        values={path: keys},
    )
    assert places("SYS-001", fake, reason=reason, observed=dict.fromkeys(keys)) == found


def test_unit_that_is_blamed_is_told_with_what_enables_it() -> None:
    fake = Fake(
        members={
            ("systemd.services", "notes"): (at("systemd.services.notes", 3),),
            ("services", "notes"): (at("services.notes.enable", 4),),
        }
    )
    blamed = (Subject.parse("unit:notes.service"),)
    assert places("BOOT-001", fake, blames=blamed) == ["web.nix:3", "web.nix:4"]


def test_line_and_option_that_the_finding_names_are_places() -> None:
    assert places("BOOT-001", Fake(), reason="hosts/a.nix:12: a secret") == ["hosts/a.nix:12"]
    fake = Fake(texts={"services.old.name": (at("services.old.name", 8),)})
    assert places(
        "BOOT-001", fake, observed=["The option `services.old.name' has been renamed"]
    ) == ["web.nix:8"]


def test_a_secret_in_a_file_that_is_not_nix_is_told_where_it_stands() -> None:
    reason = "is nix.key:1: signing key of Nix (dPNd…), hosts/telegraf.conf:43: secret at the name token (a12…), expected"
    assert places("SEC-016", Fake(), reason=reason) == ["nix.key:1", "hosts/telegraf.conf:43"]
    # Elsewhere such words are an address and a port.
    assert places("BOOT-001", Fake(), reason="is db.example:54: no answer") == ["flake.nix:1"]


def test_nothing_is_told_where_it_was_not_asked_for() -> None:
    assert places("SSH-001", Fake(known=False)) == []
