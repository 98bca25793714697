"""What the story of a switch and its rollback sees of a guest, run here."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from checks.rollback.failed import newly_failed
from checks.rollback.test_rollback import SYSCTL, _look
from pytest_nixos.machine.command import CommandResult
from tests.support.machine import FakeMachine

SYSTEMCTL = """
systemctl() {
  case $1 in
    is-active) echo active ;;
    list-units) printf '%s' "$LISTED" ;;
  esac
}
"""


@pytest.mark.parametrize(
    ("listed", "failed"),
    [
        ("", []),
        ("b.service loaded failed failed B of it\na.timer loaded failed failed A\n", ["a.timer", "b.service"]),
    ],
)  # fmt: skip
def test_what_is_seen(listed: str, failed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: str, **_more: object) -> CommandResult:
        done = subprocess.run(
            ["bash", "-c", SYSTEMCTL + command],
            check=False,
            capture_output=True,
            env={"LISTED": listed, "PATH": "/usr/bin:/bin"},
        )
        return CommandResult(
            command=command, exit_status=0, stdout=done.stdout, stderr=done.stderr, duration_s=0.0
        )

    machine = FakeMachine().as_machine
    monkeypatch.setattr(machine, "run", run)
    seen = _look(machine)
    assert newly_failed({"failed": ""}, seen) == failed
    assert seen["unit"] == "active"
    assert seen["file"] == ""
    assert seen["sysctl"] == Path(f"/proc/sys/{SYSCTL.replace('.', '/')}").read_text().strip()
    assert abs(int(seen["now"]) - time.time()) < 60
