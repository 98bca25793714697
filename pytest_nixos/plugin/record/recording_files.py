"""The files of ``--nixos-record`` that are written when the run ends: what was declared and found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from pytest_nixos import __version__
from pytest_nixos.errors import NixosError
from pytest_nixos.findings import Finding
from pytest_nixos.local.text import printable
from pytest_nixos.nix.command.refs import HomesRef
from pytest_nixos.plugin.record.run_record import folder_of_flake
from pytest_nixos.plugin.record.signature import Signer
from pytest_nixos.plugin.session import HostEntry, NixosSession
from pytest_nixos.recording.files import MANIFEST, digest, folder_of, write_file
from pytest_nixos.recording.model import (
    FORMAT,
    VERSION,
    DeclaredFile,
    FindingsFile,
    HostFiles,
    Manifest,
)
from pytest_nixos.recording.observed import redacted_host
from pytest_nixos.recording.recording import DECLARED, FINDINGS, OBSERVED
from pytest_nixos.secrets.redact import redact_json, redact_texts

__all__ = ["RecordingFiles"]

Json = Any
#: What of a finding a guest may have said; by the rest a replay finds it again.
_SAID = ("reason", "expected", "observed", "attachments", "journal", "why", "by_hand", "remedy")


class RecordingFiles:
    """Writes a recording's manifest, and beside what was observed what was declared and found.

    :param directory: new and empty.
    :param signer: signs the manifest, and by its digests all files.
    """

    def __init__(self, directory: Path, signer: Signer | None = None) -> None:
        self._directory = directory
        self._signer = signer
        self._findings: dict[str, dict[str, Finding]] = {}
        self._before_waiver: dict[str, dict[str, tuple[str, str]]] = {}
        self.lines: list[str] = []
        self.failed = False

    def add(self, finding: Finding, before_waiver: Sequence[str] | None) -> None:
        """Keep a finding; a later one of the same item replaces it.

        :param before_waiver: outcome and reason without the waiver, where there is one.
        """
        self._findings.setdefault(finding.host, {})[finding.node_id] = finding
        of_host = self._before_waiver.setdefault(finding.host, {})
        of_host.pop(finding.node_id, None)
        if before_waiver is not None:
            outcome, reason = before_waiver
            of_host[finding.node_id] = (outcome, reason)

    def write(self, session: NixosSession, started_at: str) -> None:
        """Write what is left to write, the manifest last; what cannot be written fails the run."""
        if not session.tested:
            self.lines.append(printable(f"recording {self._directory}: none, no host was tested"))
            return
        try:
            manifest = Manifest(
                format=FORMAT,
                version=VERSION,
                plugin_version=__version__,
                recorded_at=started_at,
                hosts={e.key: self._write_host(e, session) for e in session.tested},
            )
            write_file(self._directory / MANIFEST, manifest)
            if self._signer is not None:
                self._signer.sign(self._directory / MANIFEST)
        except (OSError, NixosError, msgspec.ValidationError) as err:
            self.failed = True
            why = getattr(err, "strerror", None) or str(err)
            self.lines.append(printable(f"recording {self._directory} was not written: {why}"))
        else:
            self.lines.append(printable(f"recording: {self._directory.resolve()}"))
            unseen = [key for key, files in manifest.hosts.items() if OBSERVED not in files.sha256]
            if unseen:
                self.lines.append(
                    printable(
                        f"  no data control looked at {', '.join(unseen)}:"
                        " a replay says again what checks said, and judges nothing anew"
                    )
                )

    def _write_host(self, entry: HostEntry, session: NixosSession) -> HostFiles:
        folder = folder_of(entry.key)
        place, config = self._directory / folder, entry.config
        host = None if config is None else redacted_host(config)
        sha256 = {
            DECLARED: write_file(place / DECLARED, DeclaredFile(host=host)),
            FINDINGS: write_file(place / FINDINGS, self._findings_of(entry.key, session)),
        }
        if (place / OBSERVED).exists():
            sha256[OBSERVED] = digest((place / OBSERVED).read_bytes())
        return HostFiles(
            flake=str(entry.ref.flake),
            attr=entry.ref.attr,
            below=folder_of_flake(entry, session),
            backend="" if config is None else session.backend_name(entry.key).value,
            failure="" if entry.failure is None else _without_secrets(entry.failure.message),
            folder=folder,
            sha256=sha256,
            is_home=isinstance(entry.ref.flake, HomesRef),
        )

    def _findings_of(self, key: str, session: NixosSession) -> FindingsFile:
        findings = list(self._findings.get(key, {}).values())
        controls = {f.control: session.control(f.control) for f in findings}
        document = {
            "findings": [_redacted(finding) for finding in findings],
            "before_waiver": {
                node: (outcome, _without_secrets(reason))
                for node, (outcome, reason) in self._before_waiver.get(key, {}).items()
            },
            "parameters": {name: dict(control.parameters()) for name, control in controls.items()},
        }
        return msgspec.convert(document, FindingsFile)


def _redacted(finding: Finding) -> dict[str, Json]:
    plain = finding.to_json()
    return {**plain, **redact_json({name: plain[name] for name in _SAID})}


def _without_secrets(text: str) -> str:
    (redacted,) = redact_texts([("", text)])
    return redacted
