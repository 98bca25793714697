"""What a host of another system takes, by the settings that Nix tells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.errors import BuildError, MachineError, SettingsError
from pytest_nixos.local.process import Completed
from pytest_nixos.nix.building.platforms import Foreign, foreign_system, refuse_where_no_guest_runs
from pytest_nixos.nix.building.store import Nix


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


@pytest.fixture
def emulates(tmp_path: Path) -> Path:
    """The kernel's list of interpreters, with one for aarch64."""
    (tmp_path / "qemu-aarch64").touch()
    return tmp_path


def of(system: str, *, knows: str = "config", binfmt: Path = Path("/none"), **settings: Any) -> Any:
    told = {"system": "x86_64-linux", **{name.replace("_", "-"): v for name, v in settings.items()}}
    nix = Nix(runner=Told(told, knows))
    found: Foreign | None = foreign_system(nix, system, binfmt=binfmt)
    assert found is None or len(found.told) < 150  # a line of progress is cut at 200
    return found


@pytest.mark.parametrize("system", ["x86_64-linux", "i686-linux", ""])
def test_what_the_machine_runs_by_itself_takes_nothing(system: str) -> None:
    assert of(system) is None


@pytest.mark.parametrize("knows", ["config", "show-config"])
@pytest.mark.parametrize("platforms", [["i686-linux", "aarch64-linux"], "i686-linux aarch64-linux"])
def test_emulation_is_one_warning(knows: str, platforms: object) -> None:
    found = of("aarch64-linux", knows=knows, extra_platforms=platforms)
    assert "built and run here by emulation" in found.told
    assert found.not_built is found.not_run is None


@pytest.mark.parametrize("builders", ["ssh://arm aarch64-linux", "ssh://a x86_64-linux ; @{file}"])
def test_a_builder_builds_and_does_not_run(tmp_path: Path, builders: str) -> None:
    machines = tmp_path / "machines"
    machines.write_text("# ours\nssh://arm x86_64-linux,aarch64-linux /key 4\n")
    found = of("aarch64-linux", builders=builders.format(file=machines))
    assert "built on a remote builder" in found.told
    assert found.not_built is None
    assert isinstance(found.not_run, MachineError)
    assert "lib.checkHost" in found.not_run.remedy


def test_a_builder_and_an_interpreter_do_both(emulates: Path) -> None:
    found = of("aarch64-linux", builders="ssh://arm aarch64-linux", binfmt=emulates)
    assert "run here by emulation" in found.told
    assert found.not_built is found.not_run is None


@pytest.mark.parametrize(
    "builders",
    ["", "@/nowhere", "ssh://only-a-name", "ssh://a x86_64-linux\n#ssh://b aarch64-linux"],
)
def test_without_a_builder_it_is_refused_with_the_reason(builders: str) -> None:
    found = of("aarch64-linux", builders=builders)
    assert isinstance(found.not_built, BuildError)
    assert found.not_run is found.not_built
    assert "names no builder for aarch64-linux" in found.not_built.message
    assert "extra-platforms = aarch64-linux" in found.not_built.remedy


def test_a_nix_that_does_not_tell_says_nothing() -> None:
    assert of("aarch64-linux", knows="nothing") is None


def test_another_kernel_says_what_does(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_where_no_guest_runs()
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    with pytest.raises(SettingsError, match="this machine is aarch64-darwin") as caught:
        refuse_where_no_guest_runs()
    for words in ("nix.linux-builder.enable", "checks.aarch64-linux.HOST", "--nixos-backend ssh"):
        assert words in caught.value.remedy
