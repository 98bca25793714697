"""Guest scripts run in this machine's bash, and recorded answers given to parsers."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.observe.base import Probe, ProbeOutput, observe

__all__ = ["ask", "here", "moved", "parsed"]

T = TypeVar("T")


def here(command: str) -> CommandResult:
    """Run `command` on this machine as a guest would."""
    done = SubprocessRunner().run(["bash", "-c", command], deadline=Deadline.after(20))
    return CommandResult(
        command=command,
        exit_status=done.exit_status,
        stdout=done.stdout,
        stderr=done.stderr,
        duration_s=0.0,
    )


def ask(probe: Probe[T]) -> T:
    """Ask this machine."""
    return observe(here, probe)


def parsed(probe: Probe[T], text: str, status: int = 0) -> T:
    """Return what `probe` makes of a recorded answer."""
    return probe.parse(ProbeOutput(stdout=text.encode(), exit_status=status))


def moved(probe: Probe[T], old: str, new: str) -> Probe[T]:
    """Return `probe` with a part of its script replaced, such as the place where it looks."""
    assert old in probe.script
    return replace(probe, script=probe.script.replace(old, new))
