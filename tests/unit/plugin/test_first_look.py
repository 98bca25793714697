"""What a machine is asked for all data controls of a run."""

from __future__ import annotations

from typing import Any, cast

from pytest_nixos.backend_name import BackendName
from pytest_nixos.machine.boot.internet import NoWayOut
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.internet import NeedsOfMachine
from pytest_nixos.observe.store import Observations
from pytest_nixos.plugin.first_look import FirstLook
from pytest_nixos.standards.load import load_catalogue
from pytest_nixos.standards.look import Parsed, probes
from tests.unit.observe.here import here
from tests.unit.standards.samples import host_config, sample_unit


class Guest:
    """Bash of this machine, which counts what it is asked."""

    epoch = 1

    def __init__(self) -> None:
        self.commands: list[str] = []

    def run(self, command: str, *, timeout_s: float = 0, stdin: bytes = b"") -> CommandResult:
        self.commands.append(command)
        return here(command)


def look_at(guest: Guest, asked: dict[str, Probe[Any]], *foreseen: str) -> FirstLook:
    store = Observations(guest)
    needs = NeedsOfMachine(
        no_way_out=NoWayOut(), observations=lambda: store, foreseen=tuple(foreseen)
    )
    machine = cast("Any", guest)
    return FirstLook(machine=machine, store=store, seen=Parsed(asked, store), needs=needs)


def test_the_whole_catalogue_is_read_in_one_round_trip() -> None:
    host = host_config(units={"app.service": sample_unit("app.service")})
    asked = probes(load_catalogue(), host, BackendName.SSH)
    guest = Guest()
    seen = look_at(
        guest,
        {kind: Probe(name=kind, script=f"echo {kind}", parse=str) for kind in asked},
        "app.service",
    ).take()
    assert set(seen) == set(asked)
    assert all(kind in str(seen[kind]) for kind in asked)
    assert len(guest.commands) == 1
    assert "app.service" in guest.commands[0], "who may need the internet is asked for with it"


def test_an_answer_is_parsed_once_and_anew_after_a_change() -> None:
    parsed: list[bytes] = []

    def parse(output: ProbeOutput) -> int:
        parsed.append(output.stdout)
        return len(parsed)

    guest = Guest()
    look = look_at(guest, {"a": Probe(name="a", script="echo 1", parse=parse)})
    assert look.take()["a"] == look.take()["a"] == 1
    guest.epoch = 2
    assert look.take()["a"] == 2
    assert parsed == [b"1\n", b"1\n"] and len(guest.commands) == 2
