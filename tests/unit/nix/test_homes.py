"""Which host a name means, where a flake has hosts and homes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_nixos.errors import FlakeError, SettingsError
from pytest_nixos.nix.command.refs import FileRef, FlakeRef, HomesRef, HostRef, HostSelection
from pytest_nixos.nix.failure.evaluation import NoHosts
from pytest_nixos.nix.homes import all_hosts, home_names, host_named

FLAKE, HOMES = FlakeRef("/f"), HomesRef("/f")


class Flakes:
    """Plays a flake; ``None`` for an output that it does not have."""

    def __init__(self, hosts: tuple[str, ...] | None, homes: tuple[str, ...] | None) -> None:
        self.names = {FLAKE: hosts, HOMES: homes}

    def of(self, ref: FlakeRef) -> SimpleNamespace:
        def names() -> tuple[str, ...]:
            found = self.names[ref]
            if found is None:
                raise NoHosts("no such output", remedy="x")
            return found

        return SimpleNamespace(host_names=names)


def named(flakes: Any, text: str) -> HostRef:
    return host_named(flakes, HostSelection.parse(f"/f#{text}", cwd=Path("/")))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("alice@laptop", HostRef(HOMES, "alice@laptop")),
        ("homeConfigurations.alice", HostRef(HOMES, "alice")),
        ('homeConfigurations."a.b"', HostRef(HOMES, "a.b")),
        ("root@web", HostRef(FLAKE, "root@web")),
        ("nobody@web", HostRef(FLAKE, "nobody@web")),  # evaluating it tells what there is
        ("alice", HostRef(FLAKE, "alice")),
        ("nixosConfigurations.both@web", HostRef(FLAKE, "both@web")),
    ],
)
def test_a_name_is_one_of_a_host_or_of_a_home(text: str, found: HostRef) -> None:
    flakes = Flakes(("both@web", "root@web", "web"), ("alice", "alice@laptop", "both@web"))
    assert named(flakes, text) == found


def test_a_name_of_both_is_refused() -> None:
    flakes = Flakes(("both@web",), ("both@web",))
    with pytest.raises(SettingsError, match="a host and a home of this name") as refused:
        named(flakes, "both@web")
    assert "/f#nixosConfigurations.both@web or /f#homeConfigurations.both@web" in str(refused.value)


def test_a_flake_of_homes_alone() -> None:
    flakes: Any = Flakes(None, ("alice@laptop",))
    assert named(flakes, "alice@laptop") == HostRef(HOMES, "alice@laptop")
    assert all_hosts(flakes, FLAKE) == (HostRef(HOMES, "alice@laptop"),)


def test_all_hosts_are_those_of_nixos_where_there_are_any() -> None:
    flakes: Any = Flakes(("web",), ("alice@laptop",))
    assert all_hosts(flakes, FLAKE) == (HostRef(FLAKE, "web"),)


def test_neither_is_one_error() -> None:
    flakes: Any = Flakes(None, None)
    with pytest.raises(FlakeError, match="neither nixosConfigurations nor homeConfigurations"):
        all_hosts(flakes, FLAKE)


def test_a_file_has_no_homes() -> None:
    flakes: Any = Flakes(None, ("alice",))
    assert home_names(flakes, FileRef("/f/default.nix")) == ()


@pytest.mark.parametrize("name", ["alice@laptop", 'a"b', "homeConfigurations", "a#b"])
def test_a_home_is_named_as_it_is_typed(name: str) -> None:
    ref = HostRef(HOMES, name)
    assert HostSelection.parse(str(ref), cwd=Path("/")).host == ref
    assert HostSelection.parse("/f#homeConfigurations", cwd=Path("/")).flake == HOMES
