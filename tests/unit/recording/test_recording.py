"""A recording that is damaged, of another version or elsewhere is refused; what redacting changed is
not judged.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import SettingsError
from pytest_nixos.nix.command.refs import FlakeRef, HomesRef, HostRef
from pytest_nixos.nix.config.host_facts import HostConfig, parse_host_config
from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.recording.files import folder_of, try_new, write_file
from pytest_nixos.recording.model import (
    FORMAT,
    VERSION,
    Manifest,
    ObservedFile,
    Output,
)
from pytest_nixos.recording.not_recorded import NotRecorded
from pytest_nixos.recording.observed import (
    Recorded,
    recorded_outputs,
    redacted_host,
    refuse_unrecorded,
)
from pytest_nixos.recording.recording import DECLARED, Recording
from pytest_nixos.standards.control.model import Control
from pytest_nixos.standards.judging.judge import judge
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.standards.load import load_catalogue
from tests.unit.host_documents import document
from tests.unit.recording.kept import keep

CONTROLS = {control.id: control for control in load_catalogue()}
#: A control that a sysctl alone decides.
SYSCTL = next(
    c
    for c in CONTROLS.values()
    if c.observed is not None and c.observed.kind == "sysctl" and c.declared is None
)


@pytest.fixture
def host() -> HostConfig:
    return parse_host_config(HostRef(FlakeRef("/f"), "web"), document(), option_paths=())


@pytest.fixture
def kept(tmp_path: Path, host: HostConfig) -> Path:
    return keep(tmp_path, host, findings=())


def test_what_was_written_is_read(kept: Path, host: HostConfig) -> None:
    recording = Recording.open(kept)
    assert recording.declared("web").host == host
    assert recording.observed("web", host).file.observed_on == dt.date(2026, 1, 2)
    assert recording.findings("web").by_node == {}
    assert recording.backend("web") is BackendName.VM
    assert recording.refs == {"web": host.ref}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"version":1', '"version":7', "version 7, this release reads 1"),
        (FORMAT, "something", "is no recording"),
        ('"hosts":{', '"hosts":[', "is damaged"),
        ('"hosts":{"web":', '"hosts":{},"x":{"web":', "is damaged"),
        ('"folder":"hosts/web"', '"folder":"../../etc"', "lies elsewhere"),
    ],
)
def test_a_manifest_that_is_none(kept: Path, old: str, new: str, told: str) -> None:
    file = kept / "recording.json"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(SettingsError, match=told):
        Recording.open(kept).declared("web")


def test_a_recording_without_hosts(kept: Path) -> None:
    manifest = Manifest(
        format=FORMAT, version=VERSION, plugin_version="1", recorded_at="", hosts={}
    )
    write_file(kept / "recording.json", manifest)
    with pytest.raises(SettingsError, match="holds no host"):
        Recording.open(kept)


def test_a_file_that_was_changed_or_is_gone(kept: Path) -> None:
    recording = Recording.open(kept)
    file = kept / "hosts/web" / DECLARED
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(SettingsError, match="is not what was recorded"):
        recording.declared("web")
    file.unlink()
    with pytest.raises(SettingsError, match="is damaged"):
        recording.declared("web")


def test_a_directory_that_cannot_take_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="is not empty"):
        try_new(tmp_path)
    with pytest.raises(SettingsError, match="cannot be written"):
        try_new(tmp_path / "file")


@pytest.mark.parametrize("key", ["web", "db.one", "../../x", "/srv/infra#web", ".", "x" * 300])
def test_every_host_has_a_folder_of_its_own_below(key: str) -> None:
    folder = Path(folder_of(key))
    assert len(folder.parts) == 2
    assert folder.parts[0] == "hosts"
    assert folder.parts[1] not in (".", "..")
    assert len(folder.name) < 200


def outputs(host: HostConfig, control: Control, stdout: bytes) -> Mapping[str, Output]:
    assert control.observed is not None
    kind = control.observed.kind
    raw = {kind: ProbeOutput(stdout=stdout, exit_status=0, mark="0f" * 8)}
    kept, _ = recorded_outputs([control], host, redacted_host(host), raw, BackendName.VM)
    return kept


def test_what_is_not_there_is_not_judged(host: HostConfig) -> None:
    recorded = Recorded(file=ObservedFile(observed_on=dt.date(2026, 1, 2)), host=host)
    with pytest.raises(NotRecorded, match="the recording does not hold kernel parameters"):
        judge(SYSCTL, host, recorded.of(SYSCTL), BackendName.VM)
    for kind, control in {
        c.observed.kind: c
        for c in CONTROLS.values()
        if c.observed is not None and c.is_data and KINDS[c.observed.kind].host_side
    }.items():
        if kind != "declaration":
            with pytest.raises(NotRecorded):
                judge(control, host, recorded.of(control), BackendName.VM)


def test_another_script_is_not_read(host: HostConfig) -> None:
    kept = outputs(host, SYSCTL, b"")
    (kind,) = kept
    changed = {kind: msgspec.structs.replace(kept[kind], script="of another release")}
    recorded = Recorded(
        file=ObservedFile(observed_on=dt.date(2026, 1, 2), outputs=changed), host=host
    )
    with pytest.raises(NotRecorded, match="this release asks otherwise"):
        judge(SYSCTL, host, recorded.of(SYSCTL), BackendName.VM)


def test_what_is_too_large_is_left_out_and_not_judged(host: HostConfig) -> None:
    assert SYSCTL.observed is not None
    raw = {SYSCTL.observed.kind: ProbeOutput(stdout=b"x" * (9 << 20), exit_status=0)}
    kept, left_out = recorded_outputs([SYSCTL], host, host, raw, BackendName.VM)
    assert kept == {}
    file = ObservedFile(observed_on=dt.date(2026, 1, 2), left_out=left_out)
    with pytest.raises(NotRecorded, match="larger than 8 MiB"):
        judge(SYSCTL, host, Recorded(file=file, host=host).of(SYSCTL), BackendName.VM)


def test_an_option_that_nobody_read(host: HostConfig) -> None:
    control = next(c for c in CONTROLS.values() if c.declared is not None and c.declared.options)
    recorded = Recorded(file=ObservedFile(observed_on=dt.date(2026, 1, 2)), host=host)
    with pytest.raises(NotRecorded, match="nobody read the option"):
        refuse_unrecorded(recorded, control)


def test_base64_is_redacted_as_what_it_says(host: HostConfig) -> None:
    body = base64.b64encode(b"HTTP/1.1 200 OK\r\n\r\npassword = Kx92jf8Qwe7zLm\n")
    (output,) = outputs(host, SYSCTL, b"0 " + body + b"\n").values()
    (word,) = [w for w in output.text.split() if len(w) > 20]
    assert base64.b64decode(word).endswith(b"password = REDACTED\n")


def test_a_home_stays_one(kept: Path) -> None:
    manifest = json.loads((kept / "recording.json").read_text())
    manifest["hosts"]["web"]["is_home"] = True
    (kept / "recording.json").write_text(json.dumps(manifest))
    assert Recording.open(kept).refs == {"web": HostRef(HomesRef("/f"), "web")}
