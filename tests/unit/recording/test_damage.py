"""What nobody recorded is refused before anything is judged, whatever was edited in its files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.errors import SettingsError
from pytest_nixos.nix.command.refs import FlakeRef, HostRef
from pytest_nixos.nix.config.host_facts import HostConfig, parse_host_config
from pytest_nixos.recording.recording import DECLARED, FINDINGS, OBSERVED, Recording
from tests.unit.host_documents import document
from tests.unit.recording.kept import edit, edit_manifest, keep

Json = Any


@pytest.fixture
def host() -> HostConfig:
    return parse_host_config(HostRef(FlakeRef("/f"), "web"), document(), option_paths=())


@pytest.fixture
def kept(tmp_path: Path, host: HostConfig) -> Path:
    return keep(tmp_path / "kept", host)


def opened(directory: Path) -> None:
    Recording.open(directory).check("web")


def of_finding(**values: object) -> Callable[[Json], None]:
    return lambda document: document["findings"][0].update(values)


def test_what_nobody_edited_is_read(kept: Path) -> None:
    opened(kept)
    (finding,) = Recording.open(kept).findings("web").by_node.values()
    assert finding.control == "BOOT-001"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda host: host.update(backend="rocket"), "ran as 'rocket'"),
        (lambda host: host.update(backend=""), "has no machine, and nothing says why"),
        (lambda host: host.update(backend="", failure="x"), "evaluated by one file"),
        (lambda host: host.update(folder="a\0b"), "lies elsewhere"),
        (lambda host: host.update(folder="hosts"), "lies elsewhere"),
    ],
)
def test_a_manifest_that_contradicts_itself(
    kept: Path, change: Callable[[Json], None], told: str
) -> None:
    edit_manifest(kept, change)
    with pytest.raises(SettingsError, match=told):
        opened(kept)


@pytest.mark.parametrize(
    "change",
    [
        of_finding(outcome="great"),
        of_finding(severity="HUGE"),
        of_finding(host="db"),
        of_finding(rests_on=["nosuch"]),
        of_finding(blames=[":::"]),
        of_finding(journal=[{"time_s": "x", "unit": 3}]),
        of_finding(pressure={"waited": "a"}),
        of_finding(attachments=[1]),
        of_finding(reason=7),
        lambda document: document["findings"].append(document["findings"][0]),
        lambda document: document.update(before_waiver={"n": ["smashed", "x"]}),
        lambda document: document.update(before_waiver={"n": ["waived", "x"]}),
    ],
)
def test_findings_that_no_run_wrote(kept: Path, change: Callable[[Json], None]) -> None:
    edit(kept, FINDINGS, change)
    with pytest.raises(SettingsError, match="damaged"):
        opened(kept)


def test_the_same_with_what_was_observed(kept: Path) -> None:
    edit(kept, OBSERVED, lambda document: document.update(observed_on="yesterday"))
    with pytest.raises(SettingsError, match="is damaged"):
        opened(kept)


@pytest.mark.parametrize("name", ["recording.json", f"hosts/web/{OBSERVED}"])
@pytest.mark.parametrize("kind", ["pipe", "device", "link"])
def test_only_plain_files_are_read(kept: Path, name: str, kind: str) -> None:
    file = kept / name
    beside = file.rename(kept / "beside")
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero" if kind == "device" else beside)
    with pytest.raises(SettingsError, match=r"is no plain file|it is a link|lies elsewhere"):
        opened(kept)


def test_a_file_is_no_recording(kept: Path) -> None:
    with pytest.raises(SettingsError, match="is a file, and not the directory of a recording"):
        Recording.open(kept / "recording.json")
    with pytest.raises(SettingsError, match="no such directory"):
        Recording.open(kept / "none")
    with pytest.raises(SettingsError, match=r"is no recording: it has no recording\.json"):
        Recording.open(kept / "hosts")


def test_a_host_that_did_not_evaluate_has_no_machine(kept: Path) -> None:
    edit(kept, DECLARED, lambda document: document.update(host=None))
    with pytest.raises(SettingsError, match="evaluated by one file"):
        opened(kept)
    edit_manifest(kept, lambda host: host.update(backend="", failure="option x: no such"))
    opened(kept)
