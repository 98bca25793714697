from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.errors import BuildError, ToolMissingError
from pytest_nixos.local.process import Completed
from pytest_nixos.nix.command.log import BuildProgress, describe
from tests.unit.nix.fake_nix import FakeNix, nix


@pytest.mark.parametrize(
    ("version", "installable"),
    [
        ("nix (Nix) 2.8.0", "/nix/store/d.drv"),
        ("nix (Nix) 2.14.1", "/nix/store/d.drv"),
        ("nix (Nix) 2.15.0", "/nix/store/d.drv^*"),
        ("nix (Nix) 2.33pre20260101_abc", "/nix/store/d.drv^*"),
        ("nix (Lix, like Nix) 2.91.1", "/nix/store/d.drv^*"),
        ("nix (Determinate Nix 3.5.2) 2.28.3", "/nix/store/d.drv^*"),
        ("nix", "/nix/store/d.drv^*"),
    ],
)
def test_build_names_the_outputs_as_each_release_wants(
    tmp_path: Path, version: str, installable: str
) -> None:
    fake = FakeNix(version=version)
    root = tmp_path / "roots" / "web"
    assert nix(fake).build("/nix/store/d.drv", gc_root=root) == Path("/nix/store/o")
    assert fake.calls[-1][-4:] == ("--json", "--out-link", str(root), installable)
    assert root.parent.is_dir()


def test_what_is_valid_in_the_store_is_kept_and_not_built(tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir()
    root = tmp_path / "roots" / "web"
    fake = FakeNix(valid=(str(output),))
    assert nix(fake).build("/d.drv", gc_root=root, output=str(output)) == output
    (call,) = fake.calls
    assert call[:2] == ("nix-store", "--realise")
    assert call[-6:] == ("--option", "substitute", "false", "--add-root", str(root), str(output))


@pytest.mark.parametrize("there", [True, False])
def test_what_is_not_valid_is_built(tmp_path: Path, there: bool) -> None:
    output = tmp_path / "half-built"
    if there:
        output.mkdir()
    fake = FakeNix()
    built = nix(fake).build("/d.drv", gc_root=tmp_path / "r", output=str(output))
    assert built == Path("/nix/store/o")
    assert [call[0] for call in fake.calls] == (["nix-store"] if there else []) + ["nix", "nix"]


def test_builds_ahead_go_on_after_a_failure_and_raise_nothing() -> None:
    fake = FakeNix(exit_status=1)
    nix(fake).build_ahead(["/a.drv", "/b.drv"])
    assert fake.calls[-1][-4:] == ("--no-link", "--keep-going", "/a.drv", "/b.drv")
    nix(FakeNix(timeout=True)).build_ahead(["/a.drv"])


def test_build_tells_its_progress(tmp_path: Path) -> None:
    events = [
        {"action": "start", "id": 1, "type": 104},
        {"action": "result", "id": 1, "type": 105, "fields": [1, 2, 0, 0]},
    ]
    fake = FakeNix(stderr=tuple("@nix " + json.dumps(e) for e in events))
    seen: list[BuildProgress] = []
    nix(fake).build("/nix/store/d.drv", gc_root=tmp_path / "r", on_progress=seen.append)
    assert [describe(progress) for progress in seen] == ["built 1/2"]


def test_a_build_out_of_time(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="still building after 7 s"):
        nix(FakeNix(timeout=True), build_limit_s=7).build("/d.drv", gc_root=tmp_path / "r")


def test_the_failed_derivation_and_its_log_are_told(tmp_path: Path) -> None:
    drv = "/nix/store/k4ndzxvgpsgr1zcwzdvvsy6qgwpdnvn5-dep.drv"
    error = {
        "action": "msg",
        "level": 0,
        "msg": "",
        "raw_msg": f"builder for '{drv}' failed with exit code 3",
    }
    fake = FakeNix(stderr=("@nix " + json.dumps(error),), exit_status=1)
    with pytest.raises(BuildError) as caught:
        nix(fake).build("/nix/store/x.drv", gc_root=tmp_path / "r")
    assert caught.value.derivation == drv
    assert "dep failed to build" in caught.value.message
    assert caught.value.message.endswith("failed with exit code 3")
    assert fake.calls[-1][-2:] == ("log", drv)


def test_no_nix() -> None:
    class Nothing(FakeNix):
        def run(self, argv: Sequence[str], **_: Any) -> Completed:
            raise ToolMissingError("no", remedy="no")

    with pytest.raises(ToolMissingError, match="install Nix: `apt install nix-bin`"):
        nix(Nothing()).version()


def test_closure() -> None:
    assert nix(FakeNix()).closure(Path("/nix/store/a")) == (
        Path("/nix/store/a"),
        Path("/nix/store/b"),
    )


@pytest.mark.parametrize(
    ("version", "asked"),
    [
        ("nix (Nix) 2.26.3", False),
        ("nix (Nix) 2.33.0", True),
        ("nix (Nix) 2.35pre20261101_abc", True),
        ("nix (Determinate Nix 3.22.0) 2.34.1", True),
        ("nix (Lix, like Nix) 2.93.0", False),
    ],
)
def test_the_size_of_a_closure_is_asked_for_as_each_release_wants(
    version: str, asked: bool
) -> None:
    fake = FakeNix(version=version)
    nix(fake).closure_bytes(Path("/nix/store/a"))
    words = fake.calls[-1]
    assert ("--json-format" in words) is asked
    assert not asked or words[words.index("--json-format") + 1] == "1"
