"""Whether a unit was unwell before an activation, however it looked at that moment."""

from __future__ import annotations

import json
import shlex

import pytest

from pytest_nixos.generations.links import LOOK_WITH_UNITS, Moment
from pytest_nixos.generations.unwell import unwell_before
from pytest_nixos.machine.command import CommandResult
from tests.support.machine import FakeMachine
from tests.unit.observe.here import here

RESTARTED, FAILED = "5eb03494b6584870a536b337290809b3", "d9b373ed55a64feb8242e02dbe79a49c"
UNITS_FAILED, DONE = 4, 0
AT_S = 1000.5
#: As systemctl shows a flapping service in the moment of one of its tries.
RUNS = Moment.parse(
    f"up={AT_S} 190.00\n==units==\nType=simple\nId=restless.service\nActiveState=active\n"
)


class Journalled(FakeMachine):
    """A machine that answers probes by programs of its own."""

    def __init__(self, *events: tuple[str, float]) -> None:
        super().__init__()
        journal = "\n".join(
            json.dumps(
                {
                    "MESSAGE_ID": kind,
                    "UNIT": "restless.service",
                    "__MONOTONIC_TIMESTAMP": f"{at_s * 1e6:.0f}",
                }
            )
            for kind, at_s in events
        )
        self._programs = (
            "systemctl() { echo UserspaceTimestampMonotonic=1000000; }\n"
            f"journalctl() {{ [[ $* == *json* ]] && printf '%s\\n' {shlex.quote(journal)}; }}\n"
        )

    def run(self, command: str, *, timeout_s: float = 0.0, stdin: bytes = b"") -> CommandResult:
        super().run(command)
        return here(self._programs + command)


@pytest.mark.parametrize(
    "restarts",
    [
        (985.0, 988.0, 991.0, 994.0, 997.0, 1000.0),  # every three seconds
        (999.0,),
        (940.0, 970.0),  # it lives half a minute each time: so may this try
    ],
)
def test_a_service_between_two_tries_is_unwell_though_it_runs(restarts: tuple[float, ...]) -> None:
    guest = Journalled(*((RESTARTED, at_s) for at_s in restarts))
    unwell = unwell_before(guest.as_machine, RUNS, UNITS_FAILED)
    assert unwell == {"restless.service"}


@pytest.mark.parametrize(
    "events",
    [
        (),
        ((RESTARTED, 20.0), (RESTARTED, 23.0)),  # it waited for something, and runs since
        ((RESTARTED, 1001.0), (RESTARTED, 1004.0)),  # the activation itself broke it
        ((RESTARTED, 100.0), (RESTARTED, 700.0)),  # each ten minutes, as declared
        ((FAILED, 999.0),),
    ],
)
def test_a_service_that_ran_well_is_the_activations_fault(
    events: tuple[tuple[str, float], ...],
) -> None:
    guest = Journalled(*events)
    assert unwell_before(guest.as_machine, RUNS, UNITS_FAILED) == frozenset()


def test_nothing_is_asked_where_no_unit_failed() -> None:
    guest = Journalled((RESTARTED, 1000.0))
    assert unwell_before(guest.as_machine, RUNS, DONE) == frozenset()
    assert guest.commands == []


def test_a_look_tells_its_time() -> None:
    assert "/proc/uptime" in LOOK_WITH_UNITS
    assert RUNS.at_s == AT_S
    assert Moment.parse("up=soon\n==units==\n").at_s == Moment.parse("==units==\n").at_s == 0.0
