"""Looking: everything that controls need to see is read at once, and then found by each of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from pytest_nixos.backend_name import BackendName
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.standards.control.model import Control, ObservedSpec
from pytest_nixos.standards.control.seen import Sight, Unseen
from pytest_nixos.standards.judging.applicability import looks_at_machine
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.standards.sources.flake_files import FlakeFiles, StoreScan

__all__ = [
    "Parsed",
    "Store",
    "closure_observation",
    "host_observations",
    "look",
    "probes",
    "unready",
]

T = TypeVar("T")


class Store(Protocol):
    """The part of :class:`pytest_nixos.observe.store.Observations` that reading needs."""

    def of(self, probe: Probe[T]) -> T: ...

    def output(self, probe: Probe[T]) -> ProbeOutput: ...


class Parsed(Mapping[str, object]):
    """Observations by kind; each answer is parsed once, when it is asked for.

    :param asked: probes by kind.
    """

    def __init__(self, asked: Mapping[str, Probe[Any]], store: Store) -> None:
        self.asked = asked
        self._store = store
        self._known: dict[str, tuple[ProbeOutput, object]] = {}

    def __getitem__(self, kind: str) -> object:
        probe = self.asked[kind]
        output = self._store.output(probe)
        if kind not in self._known or self._known[kind][0] is not output:
            self._known[kind] = (output, self._store.of(probe))
        return self._known[kind][1]

    def __contains__(self, kind: object) -> bool:
        return kind in self.asked

    def __iter__(self) -> Iterator[str]:
        return iter(self.asked)

    def __len__(self) -> int:
        return len(self.asked)


def probes(
    controls: Iterable[Control], host: HostConfig, place: BackendName
) -> Mapping[str, Probe[Any]]:
    """Return one probe for each kind that data controls among `controls` look at, by kind.

    Controls that are not judged by what is seen there are left out: nobody waits for the answer of a
    server that the host does not run, or for a fact of a VM that says nothing about the host.
    """
    wanted: dict[str, list[Mapping[str, object]]] = {}
    for control in controls:
        if control.observed is not None and looks_at_machine(control, host, place):
            wanted.setdefault(control.observed.kind, []).append(control.observed.parameters)
    return {
        kind: probe(parameters, host)
        for kind, parameters in wanted.items()
        if (probe := KINDS[kind].probe) is not None
    }


def unready(
    controls: Iterable[Control], seen: Parsed, host: HostConfig, place: BackendName
) -> tuple[Control, ...]:
    """Return those data controls that ask a server which has not begun to answer."""
    return tuple(
        control
        for control in controls
        if control.observed is not None
        and control.observed.kind in seen
        and looks_at_machine(control, host, place)
        and KINDS[control.observed.kind].unready(
            seen[control.observed.kind], control.observed.parameters, host
        )
    )


def host_observations(
    *,
    today: dt.date,
    flake: FlakeFiles | None = None,
) -> Mapping[str, object]:
    """Return what is read without a machine, by kind; what is not given cannot be judged, and is
    told so.
    """
    found: dict[str, object] = {"declaration": today}
    if flake is not None:
        found["flake-lock"] = (flake, today)
        found["source-scan"] = flake
    return found


def closure_observation(scan: StoreScan) -> Mapping[str, object]:
    """Return what was found in the closure, by kind; apart from the others, since it needs a
    build.
    """
    return {"store-scan": scan}


def look(spec: ObservedSpec, observations: Mapping[str, object], host: HostConfig) -> Sight:
    """Find the value of one control in what was observed."""
    kind = KINDS[spec.kind]
    if spec.kind not in observations:
        if kind.host_side:
            return Unseen(f"this run did not read {kind.reads}", applicable=False)
        return Unseen(f"the machine was not asked for {kind.reads}")
    return kind.find(observations[spec.kind], spec.parameters, host)
