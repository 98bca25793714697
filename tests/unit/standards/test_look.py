"""What the catalogue asks a machine for, and what it makes of odd answers."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.standards.load import load_catalogue
from pytest_nixos.standards.look import probes, read
from pytest_nixos.standards.seen import Seen, Unseen
from tests.unit.standards.samples import host_config, sample_unit

CATALOGUE = tuple(load_catalogue())


@pytest.mark.parametrize("text", ["", "\x1e\x1f\x1d", "=\n= =\n", "\xff\xfe" * 50, "x" * 10000])
def test_odd_answers_of_a_guest_raise_nothing(text: str) -> None:
    host = host_config(options={"services.openssh.settings": {}, "systemd.network.networks": {}})
    asked = probes(CATALOGUE, host)
    for kind, probe in asked.items():
        seen = probe.parse(ProbeOutput(stdout=text.encode("latin-1"), exit_status=1))
        for control in CATALOGUE:
            if control.observed is not None and control.observed.kind == kind:
                sight = KINDS[kind].find(seen, control.observed.parameters, host)
                assert isinstance(sight, Seen | Unseen)


class RecordingStore:
    """Stands for the observations of a machine; counts how often it is asked."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def prefetch(self, probes: list[Probe[object]]) -> None:
        self.batches.append([probe.name for probe in probes])

    def of(self, probe: Probe[Any]) -> Any:
        return probe.parse(ProbeOutput(stdout=b"", exit_status=0))


def test_the_whole_catalogue_is_read_in_one_round_trip() -> None:
    host = host_config(units={"app.service": sample_unit("app.service")})
    store = RecordingStore()
    seen = read(CATALOGUE, host, store)
    assert len(store.batches) == 1
    assert len(set(store.batches[0])) == len(store.batches[0])
    assert set(seen) == set(probes(CATALOGUE, host))


def test_every_probe_is_valid_bash() -> None:
    host = host_config(options={"services.ollama.host": "127.0.0.1"})
    scripts = [probe.script for probe in probes(CATALOGUE, host).values()]
    done = SubprocessRunner().run(
        ["bash", "-n", "-c", "\n".join(f"(\n{script}\n)" for script in scripts)],
        deadline=Deadline.after(20),
    )
    assert (done.exit_status, done.stderr) == (0, b"")
