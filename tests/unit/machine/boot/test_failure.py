"""What a boot's failure says first."""

from __future__ import annotations

import pytest

from pytest_nixos.errors import BootError
from pytest_nixos.machine.boot.failure import fatal_error
from pytest_nixos.machine.boot.remedies import VM_REMEDIES
from pytest_nixos.machine.console import Console

EMERGENCY = "[  OK  ] Reached target emergency.target - Emergency Mode."


def failure(*lines: str) -> BootError:
    console = Console()
    for line in lines:
        console.append(line)
    trouble = console.fatal_trouble
    assert trouble is not None
    return fatal_error("it", console, trouble, VM_REMEDIES)


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (
            "[ TIME ] Timed out waiting for device dev-d…ib.device - /dev/disk/by-label/lib.",
            "device not found: Timed out waiting for device dev-d…ib.device - /dev/disk/by-label/lib.",
        ),
        (
            "[FAILED] Failed to mount sysroot-var.mount - /sysroot/var.",
            "unit failed: Failed to mount sysroot-var.mount - /sysroot/var.",
        ),
    ],
)
def test_what_led_to_an_emergency_is_said_first(line: str, cause: str) -> None:
    error = failure(
        "Welcome to NixOS 25.11 (Xantusia) (Initrd)!",
        line,
        "[DEPEND] Dependency failed for local-fs.target.",
        EMERGENCY,
    )
    first, *others = error.message.splitlines()
    assert first.endswith(f"s after its start: {cause}")
    assert first.startswith("it: emergency mode ")
    assert others == ["  dependency failed: Dependency failed for local-fs.target."]
    assert error.state == "emergency mode"


@pytest.mark.parametrize(
    "line",
    [
        "[FAILED] Failed to start notes.service.",
        "[ TIME ] Timed out waiting for device dev-sdz.device - /dev/sdz.",
    ],
)
def test_what_failed_in_stage_2_may_be_no_cause_of_its_emergency(line: str) -> None:
    """The guest is asked for it, which answers there."""
    error = failure("Welcome to NixOS!", line, EMERGENCY)
    assert "Reached target emergency.target" in error.message.splitlines()[0]
