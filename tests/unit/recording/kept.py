"""A small recording on disk, and copies of it that somebody edited."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.recording.files import folder_of, write_file
from pytest_nixos.recording.model import (
    FORMAT,
    VERSION,
    DeclaredFile,
    HostFiles,
    Manifest,
    ObservedFile,
)
from pytest_nixos.recording.recording import DECLARED, FINDINGS, OBSERVED

__all__ = ["edit", "edit_manifest", "keep"]

Json = Any


def keep(directory: Path, host: HostConfig, findings: Sequence[Finding] | None = None) -> Path:
    """Write a recording of one host.

    :param findings: of the recorded run; one that passed, if ``None``.
    """
    directory.mkdir(exist_ok=True)
    place = directory / folder_of("web")
    sha256 = {
        DECLARED: write_file(place / DECLARED, DeclaredFile(host=host)),
        OBSERVED: write_file(place / OBSERVED, ObservedFile(observed_on=dt.date(2026, 1, 2))),
    }
    files = HostFiles(
        flake="/f",
        attr="web",
        below="",
        backend="vm",
        failure="",
        folder=folder_of("web"),
        sha256={**sha256, FINDINGS: ""},
    )
    manifest = Manifest(
        format=FORMAT,
        version=VERSION,
        plugin_version="1",
        recorded_at="2026-01-02T03:04:05+00:00",
        hosts={"web": files},
    )
    write_file(directory / "recording.json", manifest)
    told = [_FINDING] if findings is None else findings
    (place / FINDINGS).write_text(json.dumps({"findings": [each.to_json() for each in told]}))
    edit(directory, FINDINGS, lambda _: None)
    return directory


def edit(directory: Path, name: str, change: Callable[[Json], None]) -> None:
    """Change one file of the host, and its digest with it."""
    file = directory / folder_of("web") / name
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    edit_manifest(directory, lambda host: host["sha256"].update({name: digest}))


def edit_manifest(directory: Path, change: Callable[[Json], None]) -> None:
    """Change what the manifest says of the host."""
    file = directory / "recording.json"
    document = json.loads(file.read_text())
    change(document["hosts"]["web"])
    file.write_text(json.dumps(document, separators=(",", ":")))


_FINDING = Finding(
    control="BOOT-001",
    title="Boots",
    suite="boot",
    host="web",
    backend="vm",
    severity=Severity.HIGH,
    outcome=Outcome.PASSED,
    judged_on="machine",
    reason="",
    threat="",
    remedy="",
    node_id="test_it.py::test_boot[web]",
)
