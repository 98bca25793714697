"""What is noted of a host while it is judged, for the recording."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

from pytest_nixos.backend_name import BackendName
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.store import Observations
from pytest_nixos.recording.model import Alteration, Closure, FlakeSeen, ObservedFile, Output
from pytest_nixos.recording.observed import (
    Recorded,
    recorded_outputs,
    redacted_host,
    seen_of_closure,
    seen_of_flake,
)
from pytest_nixos.standards.control.model import Control
from pytest_nixos.standards.judging.look import probes
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.standards.sources.flake_files import FlakeFiles, StoreScan

__all__ = ["HostNotes"]


class HostNotes:
    """What was seen of one host so far; the first look counts, before tests change the machine.

    :param controls: all that a replay may judge.
    """

    def __init__(
        self, host: HostConfig, place: BackendName, controls: Sequence[Control], *, today: dt.date
    ) -> None:
        self._host = host
        self._place = place
        self._controls = tuple(controls)
        self._today = today
        self._outputs: dict[str, Output] | None = None
        self._left_out: dict[str, str] = {}
        self._flake: FlakeSeen | None = None
        self._closure: Closure | None = None
        self._altered: dict[str, Alteration] = {}
        self._host_side: Mapping[str, object] = {"declaration": today}
        self._redacted = redacted_host(host)

    def saw_host_side(self, observations: Mapping[str, object]) -> None:
        """Note what was read without a machine; later calls add to it."""
        self._host_side = {**self._host_side, **observations}
        flake = observations.get("source-scan")
        if self._flake is None and isinstance(flake, FlakeFiles):
            self._flake = seen_of_flake(flake)
        if isinstance(scan := observations.get("store-scan"), StoreScan):
            self._closure = seen_of_closure(scan)

    def saw_machine(self, store: Observations, observations: Mapping[str, object]) -> None:
        """Note what the machine answered.

        :param store: holds the raw answers to what `observations` parses.
        """
        if self._outputs is not None:
            return
        asked = probes(self._controls, self._host, self._place)
        raw = {kind: store.output(probe) for kind, probe in asked.items()}
        self._outputs, self._left_out = recorded_outputs(
            self._controls, self._host, self._redacted, raw, self._place
        )
        on_machine = [c for c in self._controls if not _is_host_side(c)]
        self._altered |= self._alterations(on_machine, observations)

    def file(self) -> ObservedFile:
        """Return what the recording keeps."""
        host_side = [c for c in self._controls if _is_host_side(c)]
        return ObservedFile(
            observed_on=self._today,
            outputs=self._outputs or {},
            left_out=self._left_out,
            flake=self._flake,
            closure=self._closure,
            altered={**self._altered, **self._alterations(host_side, self._host_side)},
        )

    def _alterations(
        self, controls: Sequence[Control], observations: Mapping[str, object]
    ) -> dict[str, Alteration]:
        """Judge controls live and by what is kept, and tell where these differ."""
        kept = ObservedFile(
            observed_on=self._today,
            outputs=self._outputs or {},
            flake=self._flake,
            closure=self._closure,
        )
        recorded = Recorded(file=kept, host=self._redacted)
        return recorded.alterations(controls, self._host, observations, self._place)


def _is_host_side(control: Control) -> bool:
    return control.observed is None or KINDS[control.observed.kind].host_side
