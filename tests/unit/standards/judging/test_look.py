"""What the catalogue asks a machine for, and what it makes of odd answers."""

from __future__ import annotations

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.standards.control.seen import Seen, Unseen
from pytest_nixos.standards.judging.applicability import looks_at_machine
from pytest_nixos.standards.judging.judge import judge
from pytest_nixos.standards.judging.look import probes
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.standards.load import load_catalogue
from tests.unit.standards.samples import host_config, sample_unit

CATALOGUE = tuple(load_catalogue())


@pytest.mark.parametrize("text", ["", "\x1e\x1f\x1d", "=\n= =\n", "\xff\xfe" * 50, "x" * 10000])
def test_odd_answers_of_a_guest_raise_nothing(text: str) -> None:
    host = host_config(options={"services.openssh.settings": {}, "systemd.network.networks": {}})
    asked = probes(CATALOGUE, host, BackendName.SSH)
    for kind, probe in asked.items():
        seen = probe.parse(ProbeOutput(stdout=text.encode("latin-1"), exit_status=1))
        for control in CATALOGUE:
            if control.observed is not None and control.observed.kind == kind:
                sight = KINDS[kind].find(seen, control.observed.parameters, host)
                assert isinstance(sight, Seen | Unseen)


def test_every_probe_is_valid_bash() -> None:
    host = host_config(options={"services.ollama.host": "127.0.0.1"})
    scripts = [probe.script for probe in probes(CATALOGUE, host, BackendName.SSH).values()]
    done = SubprocessRunner().run(
        ["bash", "-n", "-c", "\n".join(f"(\n{script}\n)" for script in scripts)],
        deadline=Deadline.after(20),
    )
    assert (done.exit_status, done.stderr) == (0, b"")


def test_what_decides_nothing_in_a_place_is_not_asked_for_there() -> None:
    host = host_config(units={"app.service": sample_unit("app.service")})
    in_vm, live = (probes(CATALOGUE, host, p) for p in (BackendName.VM, BackendName.SSH))

    assert "clock" in live, "a live host has a clock of its own"
    assert "clock" not in in_vm, "a VM's clock is QEMU's, and judged by what is declared"
    assert "thermald.service" in str(live["unit-property"].units)
    assert "thermald.service" not in str(in_vm["unit-property"].units)


class Untouched(dict[str, object]):
    """Observations that nobody may look at."""

    def __contains__(self, kind: object) -> bool:
        raise AssertionError(f"{kind} was looked at")


@pytest.mark.parametrize("place", list(BackendName))
def test_nobody_looks_at_what_is_not_asked_for(place: BackendName) -> None:
    host = host_config()
    for control in CATALOGUE:
        if control.is_data and not looks_at_machine(control, host, place):
            judge(control, host, Untouched(), place)
