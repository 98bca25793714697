"""What was observed of a host: put into a recording, and taken out of it for one control at a time."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import NixosError
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.base import Probe, ProbeOutput, read
from pytest_nixos.recording.model import Alteration, Closure, FlakeSeen, ObservedFile, Output
from pytest_nixos.recording.not_recorded import NotRecorded
from pytest_nixos.secrets.redact import redact_json, redact_texts
from pytest_nixos.standards.control.model import Control
from pytest_nixos.standards.judging.applicability import looks_at_machine
from pytest_nixos.standards.judging.judge import judge
from pytest_nixos.standards.judging.look import closure_observation, look
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.standards.kinds.flake import SOURCE_FACTS
from pytest_nixos.standards.load import option_paths
from pytest_nixos.standards.sources.flake_files import FlakeFiles, SourceHits, StoreScan

__all__ = [
    "Recorded",
    "recorded_outputs",
    "redacted_host",
    "refuse_unrecorded",
    "seen_of_closure",
    "seen_of_flake",
]

Json = Any
T = TypeVar("T")
_MOST_OUTPUT = 8 << 20
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/]{24,}={0,2}(?![A-Za-z0-9+/=])")


def wanted(
    controls: Iterable[Control], host: HostConfig, place: BackendName
) -> Mapping[str, list[dict[str, Json]]]:
    """Return what data controls look at on the machine: parameters by kind of observation."""
    found: dict[str, list[dict[str, Json]]] = {}
    for control in controls:
        spec = control.observed
        if spec is None or KINDS[spec.kind].host_side:
            continue
        if looks_at_machine(control, host, place):
            found.setdefault(spec.kind, []).append(dict(spec.parameters))
    return found


def recorded_outputs(
    controls: Iterable[Control],
    host: HostConfig,
    redacted: HostConfig,
    raw: Mapping[str, ProbeOutput],
    place: BackendName,
) -> tuple[dict[str, Output], dict[str, str]]:
    """Return outputs by kind with their secrets redacted; and the kinds that are left out, and why.

    :param redacted: the host as the recording has it: a replay makes its probes from that.
    :param raw: what the machine answered, by kind.
    :param place: where it ran.
    """
    kept: dict[str, Output] = {}
    left_out: dict[str, str] = {}
    for kind, parameters in wanted(controls, host, place).items():
        output = raw.get(kind)
        probe = KINDS[kind].probe
        if output is None or probe is None:
            continue
        if len(output.stdout) > _MOST_OUTPUT:
            left_out[kind] = f"the machine's answer was larger than {_MOST_OUTPUT >> 20} MiB"
            continue
        kept[kind] = Output(
            parameters=parameters,
            script=_digest(probe(parameters, redacted).script),
            text=_redacted(output),
            exit_status=output.exit_status,
            mark=output.mark,
        )
    return kept, left_out


def redacted_host(host: HostConfig) -> HostConfig:
    """Return what a host declares with the secrets in its texts redacted."""
    return msgspec.convert(redact_json(msgspec.to_builtins(host)), HostConfig)


def seen_of_flake(flake: FlakeFiles) -> FlakeSeen:
    """Return what a recording keeps of a flake's files: not their text, which may hold secrets."""
    hits = {
        name: redact_texts(
            [("", hit) for path, text in flake.sources.items() for hit in fact.find(path, text)]
        )
        for name, fact in SOURCE_FACTS.items()
    }
    return FlakeSeen(
        lock=None if flake.lock is None else redact_json(dict(flake.lock)),
        lock_tracked=flake.lock_tracked,
        hits=hits if flake.sources else {},
        no_flake=flake.no_flake,
    )


def seen_of_closure(scan: StoreScan) -> Closure:
    """Return what a recording keeps of a closure's scan."""
    return Closure(
        paths=scan.paths,
        secrets=list(scan.secrets),
        private_keys=list(scan.private_keys),
        told=scan.told,
    )


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a recording has of one host's observations.

    :param host: as it was recorded.
    :param failure: why its machine was not observed, where that is known.
    """

    file: ObservedFile
    host: HostConfig
    failure: str = ""
    _parsed: dict[str, object] = field(default_factory=dict)

    def of(self, control: Control) -> Mapping[str, object]:
        """Return the observations by kind, for one control.

        Looking one up raises :class:`NotRecorded` where this control cannot see there what it saw on
        the machine.
        """
        return _OfControl(self, control)

    def alterations(
        self,
        controls: Iterable[Control],
        host: HostConfig,
        observations: Mapping[str, object],
        place: BackendName,
    ) -> dict[str, Alteration]:
        """Return the controls that the recording judges or shows otherwise than the live `host`.

        :param observations: that the machine made.
        """
        found: dict[str, Alteration] = {}
        for control in controls:
            if not control.is_data:
                continue
            seen = [
                _sight(control, config, seen, place)
                for config, seen in ((host, observations), (self.host, self.of(control)))
            ]
            if seen[0] != seen[1]:
                if seen[1] is None:
                    continue  # what the recording does not hold at all is told when it is replayed
                same = seen[0] is not None and seen[0][0] == seen[1][0]
                found[control.id] = Alteration(
                    same_with=dict(control.parameters()) if same else None
                )
        return found

    def observation(self, control: Control) -> object:
        """Return what the kind of a control's observation parsed.

        :raises NotRecorded: if the recording does not have it.
        """
        spec = control.observed
        assert spec is not None
        if KINDS[spec.kind].host_side:
            return self._host_side(spec.kind)
        self._refuse_unseen(control)
        if spec.kind not in self._parsed:
            output = self.file.outputs[spec.kind]
            make = KINDS[spec.kind].probe
            assert make is not None
            probe = make(output.parameters, self.host)
            if _digest(probe.script) != output.script:
                raise NotRecorded(
                    f"this release asks otherwise for {KINDS[spec.kind].reads} than the one that recorded"
                )
            self._parsed[spec.kind] = _parsed(probe, output)
        return self._parsed[spec.kind]

    def _refuse_unseen(self, control: Control) -> None:
        spec = control.observed
        assert spec is not None
        reads = KINDS[spec.kind].reads
        output = self.file.outputs.get(spec.kind)
        if output is None:
            why = self.file.left_out.get(spec.kind) or self.failure
            raise NotRecorded(f"the recording does not hold {reads}{f': {why}' if why else ''}")
        if dict(spec.parameters) not in output.parameters:
            raise NotRecorded(
                f"nobody asked the machine for this control when it was recorded ({reads})"
            )

    def _host_side(self, kind: str) -> object:
        if kind == "declaration":
            return self.file.observed_on
        if kind == "store-scan" and self.file.closure is not None:
            closure = self.file.closure
            scan = StoreScan(
                paths=closure.paths,
                secrets=tuple(closure.secrets),
                private_keys=tuple(closure.private_keys),
                told=closure.told,
            )
            return closure_observation(scan)["store-scan"]
        flake = self.file.flake
        if kind == "flake-lock" and flake is not None:
            files = FlakeFiles(
                lock=flake.lock,
                lock_tracked=flake.lock_tracked,
                sources={},
                no_flake=flake.no_flake,
            )
            return (files, self.file.observed_on)
        if kind == "source-scan" and flake is not None and flake.hits.keys() >= SOURCE_FACTS.keys():
            return SourceHits(hits=flake.hits, no_flake=flake.no_flake)
        if kind == "source-scan" and flake is not None and not flake.hits:
            return SourceHits(hits={}, no_flake=flake.no_flake)
        raise NotRecorded(f"the recording does not hold {KINDS[kind].reads}")


class _OfControl(Mapping[str, object]):
    def __init__(self, recorded: Recorded, control: Control) -> None:
        self._recorded = recorded
        self._control = control

    def __getitem__(self, kind: str) -> object:
        return self._recorded.observation(self._control)

    def __contains__(self, kind: object) -> bool:
        return True  # what is not there is told when it is asked for

    def __iter__(self) -> Iterator[str]:
        return iter(KINDS)

    def __len__(self) -> int:
        return len(KINDS)


def refuse_unrecorded(recorded: Recorded, control: Control) -> None:
    """Refuse to judge a control that asks for an option which nobody read, or of which redacting
    secrets took what it looks at.

    :raises NotRecorded: then.
    """
    unread = [path for path in option_paths([control]) if path not in recorded.host.options]
    if unread:
        raise NotRecorded(f"nobody read the option {unread[0]} when the host was recorded")
    alteration = recorded.file.altered.get(control.id)
    if alteration is not None and alteration.same_with != dict(control.parameters()):
        raise NotRecorded("what it looks at held a secret, which the recording does not")


def _sight(
    control: Control, host: HostConfig, observations: Mapping[str, object], place: BackendName
) -> tuple[Json, ...] | None:
    """Return the outcome of a control and all that it sees; ``None`` where nobody can judge it."""
    try:
        verdict = judge(control, host, observations, place)
        seen = (
            look(control.observed, observations, host)
            if control.observed is not None and verdict.judged_on not in ("nothing", "config")
            else None
        )
    except NixosError:
        return None
    return verdict.outcome, verdict.reason, verdict.observed, seen


def _parsed(probe: Probe[T], output: Output) -> T:
    return read(
        probe,
        ProbeOutput(stdout=output.text.encode(), exit_status=output.exit_status, mark=output.mark),
    )


def _redacted(output: ProbeOutput) -> str:
    """Redact each field by itself: between two of them stands a mark, which looks like a secret, or a
    NUL; what a probe sends as base64 is read as what it says.
    """
    between = f"(\n{re.escape(output.mark)}=|\0)" if output.mark else "(\0)"
    fields = re.split(between, output.text)
    return "".join(redact_texts([("", _BASE64.sub(_redact_encoded, field)) for field in fields]))


def _redact_encoded(match: re.Match[str]) -> str:
    encoded = match[0]
    if len(encoded) % 4:
        return encoded
    text = base64.b64decode(encoded).decode(errors="replace")
    (redacted,) = redact_texts([("", text)])
    return encoded if redacted == text else base64.b64encode(redacted.encode()).decode()


def _digest(script: str) -> str:
    return hashlib.sha256(script.encode()).hexdigest()
