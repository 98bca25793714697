"""What a machine is asked for all data controls of a run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, cast

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.findings import Outcome, Severity
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.boot.internet import NoWayOut
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.network.internet import NeedsOfMachine
from pytest_nixos.observe.store import Observations
from pytest_nixos.plugin.judging.first_look import FirstLook
from pytest_nixos.standards.control.model import Control, Expectation, ObservedSpec, Operator
from pytest_nixos.standards.judging.judge import judge
from pytest_nixos.standards.judging.look import Parsed, probes, unready
from pytest_nixos.standards.load import load_catalogue
from tests.unit.observe.here import here
from tests.unit.standards.samples import host_config, sample_unit

Json = Any


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


class Answers(BaseHTTPRequestHandler):
    """Says that it is loading at first, and has no leader yet when it is asked once more."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(503 if self.asked == 1 else 200)
        self.end_headers()
        self.wfile.write(b'{"leader": "%s"}' % (b"" if self.asked == 2 else b"n1"))

    def log_message(self, *_: Any) -> None: ...


class Starting(Guest):
    """A guest with a server that begins to listen when it has been asked for a while.

    :param unit: what systemd says of its unit.
    """

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit
        self.server = HTTPServer(("127.0.0.1", 0), Answers, bind_and_activate=False)
        self.server.server_bind()
        self.serving = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.limits_s: list[float] = []
        Answers.asked = 0

    def deadline(self, limit_s: float) -> Deadline:
        self.limits_s.append(limit_s)
        return Deadline.after(limit_s)

    def run(self, command: str, *, timeout_s: float = 0, stdin: bytes = b"") -> CommandResult:
        if len(self.commands) == 3:
            self.server.server_activate()
            self.serving.start()
        said = f"Id=late.service\\nLoadState=loaded\\nFragmentPath=/f\\nActiveState={self.unit}"
        return super().run(f"systemctl() {{ printf '{said}\\n'; }}\n{command}")

    def controls(self, **more: Any) -> list[Control]:
        """Return one that asks the server, and one that asks where it listens."""
        port = f"{{services.late.port|{self.server.server_port}}}"
        both = {"opened-by": more.pop("opened-by", ())}
        url = f"http://127.0.0.1:{port}/"
        asked = [
            ("http", {"url": url, "field": "json", **both, **more}, "leader"),
            ("socket", {"port": port, **both}, ""),
        ]
        return [
            Control(
                id=f"X-00{number}",
                suite="x",
                title="",
                severity=Severity.LOW,
                threat="",
                remedies=(),
                observed=ObservedSpec(
                    kind=kind, parameters={**given, **({"select": [member]} if member else {})}
                ),
                expect=Expectation(op=Operator.NOT_EMPTY),
            )
            for number, (kind, given, member) in enumerate(asked)
        ]

    def outcomes(self, controls: list[Control], **options: Json) -> list[Outcome]:
        """Judge them by what the first look saw."""
        host, place = host_config(options=options), BackendName.SSH
        store = Observations(self)
        seen = Parsed(probes(controls, host, place), store)
        needs = NeedsOfMachine(no_way_out=NoWayOut(), observations=lambda: store)
        look = FirstLook(
            machine=cast("Any", self),
            store=store,
            seen=seen,
            needs=needs,
            unready=lambda: unready(controls, seen, host, place),
        )
        observations = look.take()
        assert look.take() is observations
        return [judge(one, host, observations, place).outcome for one in controls]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_nixos.plugin.judging.first_look._INTERVAL_S", 0.05)


@pytest.fixture
def starting() -> Iterator[Starting]:
    guest = Starting("active")
    yield guest
    if guest.serving.is_alive():
        guest.server.shutdown()
    guest.server.server_close()


@pytest.mark.usefixtures("quick")
def test_a_server_that_does_not_answer_yet_is_asked_again(starting: Starting) -> None:
    controls = starting.controls(**{"comes-later": True})
    assert starting.outcomes(controls) == [Outcome.PASSED, Outcome.PASSED]
    assert Answers.asked == 3
    assert len(starting.limits_s) == 1, "all share one while"


@pytest.mark.usefixtures("quick")
def test_what_an_answer_lacks_is_not_waited_for(starting: Starting) -> None:
    assert starting.outcomes(starting.controls()) == [Outcome.FAILED, Outcome.PASSED]
    assert Answers.asked == 2


@pytest.mark.parametrize("unit", ["failed", "inactive"])
def test_a_server_that_will_not_answer_is_not_waited_for(unit: str) -> None:
    guest = Starting(unit)
    assert guest.outcomes(guest.controls()) == [Outcome.FAILED, Outcome.FAILED]
    assert len(guest.commands) == 2
    guest.server.server_close()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("options", "waited"), [({}, False), ({"services.late.http": "127.0.0.1:1"}, True)]
)
def test_a_server_that_the_host_does_not_open_is_not_waited_for(
    starting: Starting, options: dict[str, Json], waited: bool
) -> None:
    controls = starting.controls(**{"opened-by": ["services.late.port", "services.late.http"]})
    assert (Outcome.PASSED in starting.outcomes(controls, **options)) is waited
    assert (len(starting.commands) > 1) is waited


def test_a_server_that_never_answers_costs_its_while_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_nixos.plugin.judging.first_look._ANSWERING_S", 0.2)
    guest = Starting("active")
    guest.commands = [""] * 10
    assert guest.outcomes(guest.controls()) == [Outcome.FAILED, Outcome.FAILED]
    assert guest.limits_s == [0.2]
    guest.server.server_close()
