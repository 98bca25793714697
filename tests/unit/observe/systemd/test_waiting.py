"""A service is waited for while it can still answer, and no longer."""

from __future__ import annotations

import subprocess
import time

import pytest

from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.observe.systemd.waiting import poll_service

ACTIVE = "Id=a.service\nLoadState=loaded\nActiveState=active\nSubState=running\n"
STARTING = "Id=a.service\nLoadState=loaded\nActiveState=activating\nSubState=start\n"


class Guest:
    """Answers every command with the unit's properties, wrapped as the batch of probes is asked."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.asked = 0

    def __call__(self, command: str) -> CommandResult:
        self.asked += 1
        done = subprocess.run(
            ["bash", "-c", f"systemctl() {{ printf %s '{self.shown}'; }}\n{command}"],
            capture_output=True,
            check=False,
        )
        return CommandResult(
            command=command,
            exit_status=done.returncode,
            stdout=done.stdout,
            stderr=done.stderr,
            duration_s=0.0,
        )


@pytest.mark.parametrize(
    "shown",
    [
        "Id=a.service\nLoadState=loaded\nActiveState=failed\nSubState=failed\n",
        "Id=a.service\nLoadState=not-found\nActiveState=inactive\nSubState=dead\n",
        "Id=a.service\nLoadState=bad-setting\nActiveState=inactive\nSubState=dead\n",
        "Id=a.service\nLoadState=loaded\nActiveState=activating\nSubState=auto-restart\nNRestarts=3\n",
    ],
)
def test_nobody_waits_for_a_unit_that_cannot_answer(shown: str) -> None:
    began_s = time.monotonic()
    assert (
        poll_service(Guest(shown), "a.service", lambda: None, deadline=Deadline.after(60)) is None
    )
    assert time.monotonic() - began_s < 10


@pytest.mark.parametrize(
    "shown",
    [
        ACTIVE,
        STARTING,
        "",
        "Id=a.service\nLoadState=loaded\nActiveState=activating\nSubState=auto-restart\nNRestarts=1\n",
    ],
)
def test_a_unit_that_may_still_answer_is_waited_for(shown: str) -> None:
    answers = iter([None, None, "there"])
    found = poll_service(
        Guest(shown),
        "a.service",
        lambda: next(answers),
        deadline=Deadline.after(60),
        interval_s=0.01,
    )
    assert found == "there"


def test_what_answers_is_taken_whatever_systemd_says() -> None:
    guest = Guest("Id=a.service\nActiveState=failed\n")
    assert poll_service(guest, "a.service", lambda: 7, deadline=Deadline.after(60)) == 7
    assert guest.asked == 0


def test_the_deadline_ends_the_wait() -> None:
    found = poll_service(
        Guest(ACTIVE), "a.service", lambda: None, deadline=Deadline.after(0.2), interval_s=0.05
    )
    assert found is None
