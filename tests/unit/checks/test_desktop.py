"""What is said of a desktop: up, in a loop, black, or none."""

from __future__ import annotations

from typing import Any

import pytest

from checks.desktop.test_desktop import _look, _problem, _Seen
from tests.support.machine import FakeMachine

UP = "default=graphical.target\ntarget=active\nId=greetd.service\nLoadState=loaded\nActiveState=active\n"
GREETER = "session 77=greeter (greetd)\n"
UNIT = "greetd.service"


def seen(text: str) -> _Seen:
    return _look(FakeMachine({"loginctl": text}).as_machine)


def up(more: str = GREETER, *, pid: int = 7, restarts: int = 0) -> _Seen:
    return seen(f"{UP}MainPID={pid}\nNRestarts={restarts}\nprogram=greetd\n{more}")


def test_a_greeter_on_the_screen_is_a_desktop_that_is_up() -> None:
    assert up().is_up
    assert _problem(UNIT, up(), up()) == ""


def test_what_draws_on_the_console_itself_has_no_session() -> None:
    ly = seen(f"{UP}MainPID=7\nNRestarts=0\nprogram=ly\n")
    assert ly.is_up
    assert _problem(UNIT, ly, ly) == ""


@pytest.mark.parametrize(
    ("early", "late", "told"),
    [
        (up(), up(pid=8, restarts=1), "ends and is started again and again"),
        (up(""), up(""), "nothing is on its screen"),
        (up(), up("session 78=greeter (greetd)\n"), "what greetd.service shows ends"),
        (
            seen(UP.replace("=active", "=failed")),
            seen(UP.replace("=active", "=failed")),
            "is failed",
        ),
        (
            seen(UP.replace("target=active", "target=inactive") + GREETER),
            seen(UP.replace("target=active", "target=inactive") + GREETER),
            "graphical.target is inactive",
        ),
        (seen(""), seen("LoadState=not-found\n"), "is not-found, and the host declares it"),
        (seen(""), seen(""), "is unknown, and the host declares it"),
    ],
)
def test_what_is_wrong_with_a_desktop(early: Any, late: Any, told: str) -> None:
    assert told in _problem(UNIT, early, late)
    assert not late.is_up or early.facts != late.facts or early.sessions != late.sessions


@pytest.mark.parametrize(
    ("text", "by_hand"),
    [
        ("default=multi-user.target\nActiveState=inactive\n", True),
        ("default=multi-user.target\nActiveState=active\n", False),
        ("default=graphical.target\nActiveState=inactive\n", False),
    ],
)
def test_a_display_manager_that_nothing_starts_is_started_by_hand(text: str, by_hand: bool) -> None:
    assert seen(text).is_by_hand is by_hand
