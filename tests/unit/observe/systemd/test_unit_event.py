"""What happened to units, as journalctl prints it."""

from __future__ import annotations

import json

import pytest

from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.observe.systemd.unit_event import UnitEventKind, UnitHistory, unit_history

FAILED = "d9b373ed55a64feb8242e02dbe79a49c"
RESTARTED = "5eb03494b6584870a536b337290809b3"
TIMES = "=times\nUserspaceTimestampMonotonic=10000000 FinishTimestampMonotonic=12000000 Now=52.10 99.9\n=events\n"


def entry(message_id: str, unit: str, at_us: int, **more: object) -> str:
    fields = {
        "MESSAGE_ID": message_id,
        "UNIT": unit,
        "__MONOTONIC_TIMESTAMP": str(at_us),
        "MESSAGE": f"{unit}: something",
    }
    return json.dumps({**fields, **more})


def read(text: str, status: int = 0) -> UnitHistory:
    return unit_history().parse(ProbeOutput(stdout=text.encode(), exit_status=status))


def test_what_happens_after_the_boot_is_told_apart() -> None:
    early, late = (
        entry(FAILED, "early.service", 11_000_000),
        entry(FAILED, "late.service", 27_000_000),
    )
    seen = read(f"{TIMES}{early}\n{late}\n=kernel\n")
    assert seen.answered
    assert seen.up_s == pytest.approx(42.1)
    assert [e.unit for e in seen.events] == ["early.service", "late.service"]
    assert [e.unit for e in seen.after_boot()] == ["late.service"]


def test_what_a_run_starts_itself_is_no_event_of_the_host() -> None:
    own = entry(FAILED, "pytest-nixos-session-3f.service", 27_000_000)
    theirs = entry(FAILED, "pytest-nixos-other.service", 28_000_000)
    seen = read(f"{TIMES}{own}\n{theirs}\n=kernel\n")
    assert [e.unit for e in seen.after_boot()] == ["pytest-nixos-other.service"]


def test_kinds_and_units_of_users() -> None:
    restarted = entry(RESTARTED, "", 20_000_000, UNIT=None, USER_UNIT="sync.service")
    (event,) = read(f"{TIMES}{restarted}\n=kernel\n[  3.1] app[7]: segfault at 0\n").events
    assert (event.kind, event.unit) == (UnitEventKind.RESTARTED, "sync.service")
    assert event.of_user
    (own,) = read(f"{TIMES}{entry(FAILED, 'a.service', 1)}\n=kernel\n").events
    assert not own.of_user


@pytest.mark.parametrize("line", ["{", "[1]", "7", '{"MESSAGE_ID": 3}', "[" * 100_000])
def test_odd_lines_are_left_out(line: str) -> None:
    assert read(f"{TIMES}{line}\n=kernel\n").events == ()


@pytest.mark.parametrize(("text", "status"), [("", 0), (TIMES, 3), ("Now=\n", 0)])
def test_no_answer_is_no_answer(text: str, status: int) -> None:
    assert not read(text, status).answered


def test_a_boot_that_goes_on_has_nothing_after_it() -> None:
    times = TIMES.replace("12000000", "0")
    seen = read(f"{times}{entry(FAILED, 'a.service', 27_000_000)}\n=kernel\n")
    assert seen.settled_at_s is None
    assert seen.after_boot() == ()
