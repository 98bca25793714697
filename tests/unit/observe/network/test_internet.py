"""Which units of a machine need the internet: asked of a guest of the test's own."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from pytest_nixos.machine.boot.internet import NoWayOut
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.nix.config.unit import Unit
from pytest_nixos.observe.network.internet import NeedsOfMachine
from pytest_nixos.observe.store import Observations
from tests.unit.observe.here import here

SAID = "curl: (6) Could not resolve host: data.example.org"


class Guest:
    """Bash of this machine whose systemctl and journalctl answer as they are told."""

    epoch = 1

    def __init__(
        self, *, states: Mapping[str, str], said: Mapping[str, str], jobs: str = ""
    ) -> None:
        self.states, self.said, self.jobs = states, said, jobs
        self.asked = 0

    def run(self, command: str, *, timeout_s: float = 1, stdin: bytes = b"") -> CommandResult:
        self.asked += 1
        return here(f"{self._programs()}\n{command}")

    def _programs(self) -> str:
        shown = "".join(
            f"{shlex.quote(unit)}) printf '%s\\n' "
            f"{shlex.quote(f'Id={unit}')} LoadState=loaded {state} '';;\n"
            for unit, state in self.states.items()
        )
        journals = "".join(
            f"*--unit={unit}) printf '%s\\n' {shlex.quote(_entry(text))};;\n"
            for unit, text in self.said.items()
        )
        lively = [
            f"{u} loaded active running it"
            for u, s in self.states.items()
            if u.endswith(".service") and "ActiveState=inactive" not in s
        ]
        failed = "\n".join(u for u, s in self.states.items() if "ActiveState=failed" in s)
        return f"""
timeout() {{ shift; "$@"; }}
journalctl() {{ case "$*" in {journals} *) ;; esac; }}
systemctl() {{
  case "$*" in
    *state=failed*) printf '%s\\n' {shlex.quote(failed)};;
    *type=service*) printf '%s\\n' {shlex.join(lively)};;
    *list-jobs*) printf %s {shlex.quote(self.jobs)};;
    *show*) while [ $# -gt 0 ]; do case "$1" in {shown} esac; shift; done;;
  esac
}}
"""


def _entry(text: str) -> str:
    entry: Any = {"MESSAGE": text, "_PID": "9", "_SYSTEMD_INVOCATION_ID": "a"}
    return json.dumps(entry)


def unit(name: str, **of_unit: tuple[str, ...]) -> Unit:
    return Unit(name=name, enabled=True, settings={"Unit": of_unit}, wanted_by=())


FAILED = "ActiveState=failed SubState=failed Result=exit-code ExecMainStatus=1"
IDLE = "ActiveState=inactive SubState=dead Result=success ExecMainStatus=0"
STARTING = "ActiveState=activating SubState=start Result=success ExecMainStatus=0"
RUNS = "ActiveState=active SubState=running Result=success ExecMainStatus=0"


def needs_of(guest: Guest, *units: Unit, way_out: bool = False) -> NeedsOfMachine:
    observations = Observations(guest)
    return NeedsOfMachine(
        no_way_out=None if way_out else NoWayOut(units={u.name: u for u in units}),
        observations=lambda: observations,
    )


def test_a_failed_unit_that_reached_nobody_and_what_requires_it() -> None:
    guest = Guest(
        states={
            "fetch.service": FAILED,
            "broken.service": FAILED,
            "needs.service": IDLE,
            "far.service": IDLE,
        },
        said={"fetch.service": SAID, "broken.service": "permission denied"},
    )
    needs = needs_of(
        guest,
        unit("needs.service", Requires=("fetch.service",)),
        unit("far.service", BindsTo=("needs.service",)),
        unit("other.service", Requires=("broken.service",)),
    )

    found = needs.of(["fetch.service", "broken.service", "far.service", "other.service"])

    assert list(found) == ["fetch.service", "far.service"]
    assert found["fetch.service"].address == "data.example.org"
    assert found["far.service"].why == "requires needs.service"
    assert set(needs.all()) == {"fetch.service"}
    assert needs.words(found) == (
        "needs the internet: not judged: fetch.service (data.example.org), "
        "far.service (data.example.org)"
    )


def test_where_the_guest_has_a_way_out_nothing_is_excused() -> None:
    guest = Guest(states={"fetch.service": FAILED}, said={"fetch.service": SAID})
    needs = needs_of(guest, way_out=True)

    assert needs.has_way_out
    assert not needs.of(["fetch.service"]) and not needs.all() and not needs.holding_up()
    assert guest.asked == 0


def test_a_unit_that_runs_needs_nothing_whatever_it_said() -> None:
    guest = Guest(states={"web.service": RUNS}, said={"web.service": SAID})
    assert not needs_of(guest).of(["web.service"])


def test_what_is_queued_behind_the_internet_alone_is_not_judged() -> None:
    jobs = "1 pull.service start running\n2 next.service start waiting\n"
    states = {
        "pull.service": f"{STARTING} Job=1",
        "next.service": f"{IDLE} Job=2",
        "slow.service": f"{STARTING} Job=3",
    }
    guest = Guest(states=states, said={"pull.service": SAID}, jobs=jobs)
    needs = needs_of(guest)

    assert set(needs.holding_up()) == {"pull.service"}
    assert needs.of(["next.service"])["next.service"].why == "waits behind pull.service"

    both = Guest(
        states=states, said={"pull.service": SAID}, jobs=f"{jobs}3 slow.service start running\n"
    )
    assert not needs_of(both).holding_up()
    assert not needs_of(both).of(["next.service"])


def test_a_service_in_a_restart_loop_is_known_whatever_the_moment_shows() -> None:
    for state in (
        "ActiveState=active SubState=running Result=success NRestarts=40",
        "ActiveState=activating SubState=auto-restart Result=exit-code NRestarts=2",
    ):
        guest = Guest(states={"agent.service": state}, said={"agent.service": SAID})
        assert set(needs_of(guest, unit("agent.service")).all()) == {"agent.service"}

    over = "ActiveState=inactive SubState=dead Result=success NRestarts=40"
    guest = Guest(states={"agent.service": over}, said={"agent.service": SAID})
    assert not needs_of(guest, unit("agent.service")).all(), "its last start has ended well"


def test_about_no_unit_nothing_is_asked() -> None:
    guest = Guest(states={"a.service": FAILED}, said={"a.service": SAID})
    needs = replace(needs_of(guest, unit("a.service")), foreseen=("a.service",))
    assert needs.of([]) == {} and guest.asked == 0
    assert set(needs.of(["a.service"])) == {"a.service"} and guest.asked > 0
