"""What died since the boot is told by the look at the end, by one alone where the machine is up for long."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from checks.units import test_last_look
from pytest_nixos import Evidence
from pytest_nixos.machine.command import CommandResult
from tests.unit.observe.here import here
from tests.unit.observe.systemd.test_unit_event import FAILED, entry
from tests.unit.standards.samples import host_config

DIED = entry(FAILED, "late.service", 27_000_000)


class Guest:
    """Bash of this machine that is up for longer at each look, and whose journal holds more.

    :param looks: seconds since the start, and the journal, of each.
    """

    def __init__(self, uptime: Path, *looks: tuple[float, str]) -> None:
        self.uptime = uptime
        self.looks = list(looks)

    def run(self, command: str, *, timeout_s: float = 1, stdin: bytes = b"") -> CommandResult:
        said = ""
        if "/proc/uptime" in command:
            up_s, said = self.looks.pop(0)
            self.uptime.write_text(f"{up_s} 9")
        programs = f"""
journalctl() {{ case "$*" in *MESSAGE_ID*) printf '%s\\n' {shlex.quote(said)};; esac; }}
systemctl() {{ case "$*" in *Timestamp*) printf 'UserspaceTimestampMonotonic=1\\nFinishTimestampMonotonic=12000000\\n';; esac; }}
"""
        return here(programs + command.replace("/proc/uptime", str(self.uptime)))


class NoNeeds:
    def anew(self, machine: object) -> NoNeeds:
        return self

    def of(self, names: object) -> dict[str, object]:
        return {}


def judged(guest: Guest, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    # Who waits for a process sleeps too.
    monkeypatch.setattr(test_last_look, "time", SimpleNamespace(sleep=slept.append))
    machine, needs = cast("Any", guest), cast("Any", NoNeeds())
    test_last_look.test_nothing_died_since_the_boot(
        host_config(), machine, needs, Evidence(), nixos_progress=lambda words: None
    )


def test_who_is_up_for_long_is_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    guest = Guest(tmp_path / "up", (60, DIED))
    with pytest.raises(AssertionError, match=r"late\.service"):
        judged(guest, slept, monkeypatch)
    assert not guest.looks and not slept


def test_who_has_just_booted_is_watched_and_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    guest = Guest(tmp_path / "up", (15, ""), (60, DIED))
    with pytest.raises(AssertionError, match=r"late\.service"):
        judged(guest, slept, monkeypatch)
    assert slept == [pytest.approx(25, abs=0.1)]


def test_who_stays_up_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged(Guest(tmp_path / "up", (60, "")), [], monkeypatch)
