"""What building for another system takes, by the settings that Nix tells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.local.process import Completed
from pytest_nixos.nix.platforms import what_a_build_takes
from pytest_nixos.nix.store import Nix


class Told:
    """Plays a Nix with some settings; `knows` is the command that this release has for them."""

    def __init__(self, settings: dict[str, Any], knows: str = "config") -> None:
        self.settings, self.knows = settings, knows

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        known = self.knows in argv
        document = {
            name: {"value": value, "defaultValue": None} for name, value in self.settings.items()
        }
        return Completed(
            argv=tuple(argv), exit_status=0 if known else 1, stderr=b"",
            stdout=json.dumps(document).encode() if known else b"",
        )  # fmt: skip


def takes(system: str, *, knows: str = "config", **settings: Any) -> str:
    told = {"system": "x86_64-linux", **{name.replace("_", "-"): v for name, v in settings.items()}}
    lines = what_a_build_takes(Nix(runner=Told(told, knows)), system)
    assert all(len(line) < 150 for line in lines)  # a line of progress is cut at 200
    return "\n".join(lines)


def test_the_machines_own_system_takes_nothing() -> None:
    assert takes("x86_64-linux") == ""


@pytest.mark.parametrize("knows", ["config", "show-config"])
@pytest.mark.parametrize("platforms", [["i686-linux", "aarch64-linux"], "i686-linux aarch64-linux"])
def test_emulation(knows: str, platforms: object) -> None:
    assert "built here" in takes("aarch64-linux", knows=knows, extra_platforms=platforms)


def test_builders_in_place_and_in_a_file(tmp_path: Path) -> None:
    machines = tmp_path / "machines"
    machines.write_text("# ours\nssh://arm x86_64-linux,aarch64-linux /key 4\n")
    for builders in (
        "ssh://arm aarch64-linux",
        f"@{machines}",
        f"ssh://a x86_64-linux ; @{machines}",
    ):
        assert "on a remote builder" in takes("aarch64-linux", builders=builders)
    for builders in (
        "",
        "@/nowhere",
        "ssh://only-a-name",
        "ssh://a x86_64-linux\n#ssh://b aarch64-linux",
    ):
        text = takes("aarch64-linux", builders=builders)
        assert "names no builder for aarch64-linux" in text
        assert "extra-platforms = aarch64-linux" in text  # fmt: skip


def test_a_nix_that_does_not_tell_says_nothing() -> None:
    assert takes("aarch64-linux", knows="nothing") == ""
