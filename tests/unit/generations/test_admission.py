"""What a guest's store lacks is sent, what it only does not know is registered, and neither twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_nixos.errors import GenerationError
from pytest_nixos.generations import Delta, Generations, OtherFlake, OtherHost
from pytest_nixos.generations.admission import admit
from tests.support.machine import FakeMachine

TOPLEVEL = Path("/nix/store/c-nixos-system")
SENT, KNOWN = Path("/nix/store/a-etc"), Path("/nix/store/b-bash")


class Bridge:
    def __init__(self) -> None:
        self.exported: list[Path] = []
        self.registered: list[Path] = []

    def build_generation(self, source: Delta | OtherHost | OtherFlake) -> Path:
        return TOPLEVEL

    def holds(self, path: Path) -> bool:
        return True

    def closure(self, path: Path) -> Sequence[Path]:
        return [SENT, KNOWN, path]

    def registration(self, paths: Sequence[Path]) -> bytes:
        self.registered += paths
        return b"registration"

    def export(self, paths: Sequence[Path]) -> bytes:
        self.exported += paths
        return b"archive"


def test_what_lacks_is_sent_and_what_is_unknown_is_registered() -> None:
    bridge, guest = Bridge(), FakeMachine({"--check-validity": f"absent {SENT}\nunknown {KNOWN}\n"})
    admit(guest.as_machine, bridge, TOPLEVEL)
    assert (bridge.exported, bridge.registered) == ([SENT], [KNOWN])
    assert ["--import" in command for command in guest.commands] == [False, True, False]
    assert "--load-db" in guest.commands[2]


def test_a_guest_that_has_all_gets_nothing() -> None:
    bridge, guest = Bridge(), FakeMachine()
    admit(guest.as_machine, bridge, TOPLEVEL)
    assert (bridge.exported, bridge.registered, len(guest.commands)) == ([], [], 1)


def test_a_guest_without_nix_says_what_it_needs() -> None:
    with pytest.raises(GenerationError, match="ended with 127") as caught:
        admit(FakeMachine({"--check-validity": 127}).as_machine, Bridge(), TOPLEVEL)
    assert "nix.enable" in caught.value.remedy


def test_what_was_built_a_moment_ago_is_not_looked_for_again() -> None:
    guest = FakeMachine({"[ -x": "there\nsystem\nx86_64-linux\n"})
    generations = Generations(guest.as_machine, Bridge())
    built = generations.build("{ }")
    looks = len(guest.commands)
    assert generations.build(built) == built
    assert len(guest.commands) == looks
    guest.invalidate()
    assert generations.build(built) == built
    assert len(guest.commands) == 2 * looks
