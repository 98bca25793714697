"""Which units have got over a failure: those that only waited, not those that die for ever."""

from __future__ import annotations

import pytest

from checks.units.history import last_event_s, raced_for_host_keys, recovered, troubles
from pytest_nixos.observe import UnitEvent, UnitEventKind, UnitHistory
from pytest_nixos.observe.systemd.unit import UnitState

FAILED, RESTARTED = UnitEventKind.FAILED, UnitEventKind.RESTARTED


def history(*events: tuple[UnitEventKind, float], now_s: float = 60.0) -> UnitHistory:
    return UnitHistory(
        answered=True,
        now_s=now_s,
        up_s=now_s,
        settled_at_s=5.0,
        events=tuple(UnitEvent(kind=k, unit="a.service", at_s=at, message="") for k, at in events),
        kernel=(),
    )


def states(active: str, result: str = "success") -> dict[str, UnitState]:
    properties = {
        "LoadState": "loaded",
        "FragmentPath": "/x",
        "ActiveState": active,
        "Result": result,
    }
    return {"a.service": UnitState(name="a.service", properties=properties)}


@pytest.mark.parametrize(
    ("events", "active", "over"),
    [
        # It was started before what it needs, and then did its work.
        ([(FAILED, 8.0), (RESTARTED, 10.0)], "inactive", True),
        ([(FAILED, 8.0), (RESTARTED, 10.0)], "active", True),
        # It may die again at once.
        ([(FAILED, 40.0), (RESTARTED, 50.0)], "active", False),
        ([(FAILED, 8.0)], "failed", False),
        ([(FAILED, 8.0), (RESTARTED, 10.0)], "activating", False),
        ([(FAILED, at) for at in (6.0, 7.0, 8.0, 9.0, 10.0, 11.0)], "active", False),
        ([(UnitEventKind.OUT_OF_MEMORY, 8.0), (RESTARTED, 9.0)], "active", False),
        ([(UnitEventKind.CRASHED, 8.0), (RESTARTED, 9.0)], "active", False),
    ],
)
def test_what_has_recovered(
    events: list[tuple[UnitEventKind, float]], active: str, over: bool
) -> None:
    found = history(*events)
    well = recovered(found, states(active))
    assert bool(well) is over
    assert bool(troubles(found, well)) is not over


def test_a_unit_of_which_nothing_is_known_has_not_recovered() -> None:
    assert recovered(history((FAILED, 8.0)), {}) == frozenset()
    # A user's unit: the system's manager answers of it as of any name.
    unknown = {"LoadState": "not-found", "ActiveState": "inactive", "Result": "success"}
    odd = {"a.service": UnitState(name="a.service", properties=unknown)}
    assert recovered(history((FAILED, 8.0)), odd) == frozenset()
    ended_badly = states("inactive", "exit-code")
    assert recovered(history((FAILED, 8.0)), ended_badly) == frozenset()


def test_how_long_ago_the_last_failure_was() -> None:
    assert last_event_s(history((FAILED, 50.0))) == 10.0
    assert last_event_s(history()) == float("inf")
    # What happened during the boot is another control's.
    assert last_event_s(history((FAILED, 3.0))) == float("inf")


def test_an_sshd_that_found_host_keys_made_meanwhile_is_no_failure() -> None:
    asked = [
        "2026-11-30T21:15:30+0000 it sshd_-pre-start[340]: /etc/ssh/ssh_host_rsa_key already exists.",
        "2026-11-30T21:15:30+0000 it sshd_-pre-start[340]: Overwrite (y/n)?",
    ]
    unit = "sshd@1-10.233.0.2:22-10.233.0.1:60198.service"
    assert raced_for_host_keys(unit, asked)
    assert not raced_for_host_keys("backup.service", asked)
    assert not raced_for_host_keys(unit, [*asked, "2026-11-30 it sshd[2]: fatal: no hostkeys"])
    assert not raced_for_host_keys(unit, ["2026-11-30 it sshd[2]: Connection closed"])
