"""A recording that is replayed: its hosts, each read when it is judged."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import EvalError, SettingsError
from pytest_nixos.findings import Finding, Outcome
from pytest_nixos.local.process import Completed
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.refs import FlakeRef, HomesRef, HostRef
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.flake import Flake
from pytest_nixos.nix.flakes import Flakes
from pytest_nixos.nix.prepared import NotPrepared
from pytest_nixos.recording.files import REMEDY, folder_of, read_file, read_manifest
from pytest_nixos.recording.model import (
    DeclaredFile,
    FindingsFile,
    HostFiles,
    Manifest,
    ObservedFile,
)
from pytest_nixos.recording.observed import Recorded
from pytest_nixos.report.formats.json_report import JsonFinding

__all__ = ["DECLARED", "FINDINGS", "OBSERVED", "RecordedFindings", "RecordedFlakes", "Recording"]

Json = Any
DECLARED, OBSERVED, FINDINGS = "declared.json", "observed.json", "findings.json"


@dataclass(frozen=True, kw_only=True)
class RecordedFindings:
    """What the recorded run said of one host; of its findings those are made that are asked for.

    :param by_node: findings as written, by node id.
    :param before_waiver: see :class:`pytest_nixos.recording.model.FindingsFile`; so `parameters`.
    """

    by_node: Mapping[str, JsonFinding]
    before_waiver: Mapping[str, tuple[str, str]]
    parameters: Mapping[str, Mapping[str, Json]]

    def finding(self, node_id: str) -> Finding | None:
        """Return what an item said; ``None`` where it was not there."""
        written = self.by_node.get(node_id)
        return None if written is None else Finding.from_json(msgspec.to_builtins(written))

    def of(self, node_id: str, control: str) -> Finding | None:
        """Return what an item said of a control; ``None`` where it was not there, or judged another."""
        written = self.by_node.get(node_id)
        is_of_it = written is not None and written.control == control
        return self.finding(node_id) if is_of_it else None

    def verdict(self, node_id: str) -> tuple[Outcome, str]:
        """Return outcome and reason of an item, as they were without a waiver."""
        if node_id in self.before_waiver:
            word, reason = self.before_waiver[node_id]
            return Outcome(word), reason
        written = self.by_node[node_id]
        return Outcome(written.outcome), written.reason


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recording on disk; small itself, so that it crosses to xdist's workers."""

    directory: Path
    manifest: Manifest

    @classmethod
    def open(cls, directory: Path) -> Recording:
        """Open what ``--nixos-replay`` names.

        :raises SettingsError: if it is no recording, damaged, of another version or empty.
        """
        manifest = read_manifest(directory)
        if not manifest.hosts:
            raise SettingsError(
                f"--nixos-replay {directory}: holds no host",
                remedy="record a run that tests at least one host",
            )
        for key, files in manifest.hosts.items():
            _check_host(directory, key, files)
        return cls(directory=directory, manifest=manifest)

    @property
    def told(self) -> str:
        """Say for people what is replayed."""
        return (
            f"recorded {self.manifest.recorded_at} by pytest-nixos {self.manifest.plugin_version}"
        )

    def declared(self, key: str) -> DeclaredFile:
        """Return what a host declared.

        :raises SettingsError: if its file is damaged.
        """
        found = read_file(self.directory, self.manifest.hosts[key], DECLARED, DeclaredFile)
        if found is None:
            raise SettingsError(
                f"--nixos-replay {self.directory}: lacks what {key} declares",
                remedy=REMEDY,
            )
        return found

    def observed(self, key: str, host: HostConfig) -> Recorded:
        """Return what was observed of a host.

        :param host: as it was recorded.
        :raises SettingsError: if its file is damaged.
        """
        files = self.manifest.hosts[key]
        found = read_file(self.directory, files, OBSERVED, ObservedFile)
        if found is None:
            day = dt.datetime.fromisoformat(self.manifest.recorded_at).date()
            found = ObservedFile(observed_on=day)
        return Recorded(file=found, host=host, failure=files.failure)

    def findings(self, key: str) -> RecordedFindings:
        """Return what was said of a host; :meth:`check` has found each of its findings whole.

        :raises SettingsError: if its file is damaged.
        """
        file = read_file(self.directory, self.manifest.hosts[key], FINDINGS, FindingsFile)
        file = file or FindingsFile(findings=[])
        times = Counter(finding.node_id for finding in file.findings)
        twice = next((node for node, count in times.items() if count > 1), None)
        if twice is not None:
            raise self._damaged(key, f"damaged: {twice} is there twice")
        if other := next((f.host for f in file.findings if f.host != key), None):
            raise self._damaged(key, f"damaged: one is of {other}")
        if any(word == Outcome.WAIVED.value for word, _ in file.before_waiver.values()):
            raise self._damaged(key, "damaged: one was waived before its waiver")
        return RecordedFindings(
            by_node={finding.node_id: finding for finding in file.findings},
            before_waiver=file.before_waiver,
            parameters=file.parameters,
        )

    def check(self, key: str) -> HostConfig | None:
        """Read all that is kept of a host, so that nothing is judged of what is damaged.

        :return: what it declares, ``None`` where it did not evaluate.
        :raises SettingsError: if any of it is damaged.
        """
        host = self.declared(key).host
        if (host is None) is not (self.manifest.hosts[key].backend == ""):
            raise SettingsError(
                f"--nixos-replay {self.directory}: is damaged: {key} evaluated by one file,"
                " and did not by another",
                remedy=REMEDY,
            )
        if host is not None:
            self.observed(key, host)
        self._check_findings(key)
        return host

    def _check_findings(self, key: str) -> None:
        said = self.findings(key)
        try:
            for node_id in said.by_node:
                said.finding(node_id)
        except (AttributeError, KeyError, TypeError, ValueError) as err:
            raise self._damaged(key, f"of another release, or damaged: {err}") from err

    def backend(self, key: str) -> BackendName:
        """Return how a host's machine ran.

        :raises EvalError: if it did not evaluate, so that it had none.
        """
        files = self.manifest.hosts[key]
        if not files.backend:
            raise EvalError(f"{key}: {files.failure}", remedy="mend it, and record it again")
        return BackendName(files.backend)

    def _damaged(self, key: str, how: str) -> SettingsError:
        return SettingsError(
            f"--nixos-replay {self.directory}: the findings of {key} are {how}",
            remedy="replay it with the release that recorded it: "
            f"pytest-nixos {self.manifest.plugin_version}",
        )

    @property
    def refs(self) -> Mapping[str, HostRef]:
        """The recorded hosts by key."""
        return {
            key: HostRef((HomesRef if files.is_home else FlakeRef)(files.flake), files.attr)
            for key, files in self.manifest.hosts.items()
        }


def _check_host(directory: Path, key: str, files: HostFiles) -> None:
    """Refuse what the manifest cannot have said of a host.

    :raises SettingsError: then.
    """
    why = ""
    if files.folder != folder_of(key):
        why = f"the folder of {key} lies elsewhere than in {folder_of(key)}"
    elif files.backend not in {"", *BackendName}:
        why = f"{key} ran as {files.backend!r}, which no machine does"
    elif not files.backend and not files.failure:
        why = f"{key} has no machine, and nothing says why"
    if why:
        raise SettingsError(f"--nixos-replay {directory}: is damaged: {why}", remedy=REMEDY)


class _NoNix:
    """In the place of what runs Nix: a replay asks it nothing, whoever wants to."""

    def run(self, argv: Sequence[str], **_: object) -> Completed:
        """Refuse.

        :raises NotPrepared: always.
        """
        raise NotPrepared(
            f"a replay runs no Nix: {' '.join(argv[:2])}", remedy="test the host with --nixos-flake"
        )


class _RecordedFlake(Flake):
    """The flake of recorded hosts, which is not there."""

    def __init__(
        self, ref: FlakeRef, nix: Nix, instrumentation: Instrumentation, *, below: str
    ) -> None:
        super().__init__(ref, nix, instrumentation)
        self._below = below

    @property
    def metadata(self) -> Mapping[str, Json]:
        return {"url": self.ref.url, "locked": {"dir": self._below}, "locks": {}}

    @property
    def root(self) -> Path:
        raise NotPrepared("a replay has no flake", remedy="test the host with --nixos-flake")


class RecordedFlakes(Flakes):
    """The flakes of a replay, none of which is asked anything."""

    def __init__(self, nix: Nix, instrumentation: Instrumentation, recording: Recording) -> None:
        super().__init__(dataclasses.replace(nix, runner=_NoNix()), instrumentation)
        self.recording = recording

    def of(self, ref: FlakeRef) -> Flake:
        if ref not in self._opened:
            hosts = self.recording.manifest.hosts.values()
            below = next((files.below for files in hosts if files.flake == ref.url), "")
            self._opened[ref] = _RecordedFlake(ref, self.nix, self.instrumentation, below=below)
        return self._opened[ref]
