"""What holds a process back, as recorded from two units under systemd 257."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pytest_nixos.observe.base import ProbeOutput, observe
from pytest_nixos.observe.filesystems.mount import parse_mountinfo
from pytest_nixos.observe.systemd.process import (
    ProcessFacts,
    ProtectHome,
    ProtectSystem,
    SeccompMode,
    capability_names,
    process_facts,
)
from tests.unit.observe.here import here

RECORDED = Path(__file__).parents[2] / "recorded"


@pytest.fixture(scope="module")
def facts() -> dict[str, ProcessFacts | None]:
    text = (RECORDED / "process-facts.txt").read_bytes()
    probe = process_facts(["wanted", "plain", "gone"])
    return dict(probe.parse(ProbeOutput(stdout=text, exit_status=0)))


def test_a_hardened_unit(facts: dict[str, ProcessFacts | None]) -> None:
    hardened = facts["wanted.service"]
    assert hardened is not None
    assert hardened.no_new_privileges
    assert hardened.seccomp is SeccompMode.FILTER
    assert (hardened.seccomp_filters or 0) > 0
    assert hardened.protect_system is ProtectSystem.STRICT
    assert hardened.protect_home is ProtectHome.YES
    assert not hardened.runs_as_root
    assert hardened.capabilities["bounding"] == frozenset()
    assert hardened.private_namespaces == {"mnt", "net"}
    assert all(
        (
            hardened.private_tmp,
            hardened.private_devices,
            hardened.protect_kernel_tunables,
            hardened.protect_control_groups,
            hardened.protect_kernel_logs,
            hardened.protect_kernel_modules,
            hardened.hides_processes,
        )
    )


def test_a_plain_unit(facts: dict[str, ProcessFacts | None]) -> None:
    plain = facts["plain.service"]
    assert plain is not None
    assert plain.no_new_privileges is False
    # What its container filters anyway is not the unit's.
    assert plain.seccomp_filters == 0
    assert plain.protect_system is ProtectSystem.NO
    assert plain.protect_home is ProtectHome.NO
    assert plain.runs_as_root
    assert "sys_admin" in plain.capabilities["bounding"]
    assert plain.private_namespaces == frozenset()
    assert not plain.private_tmp
    assert not plain.private_devices
    assert not plain.protect_control_groups
    assert not plain.hides_processes


def test_a_unit_without_a_process(facts: dict[str, ProcessFacts | None]) -> None:
    assert facts["gone.service"] is None


def with_mounts(facts: ProcessFacts, *lines: str) -> ProcessFacts:
    import dataclasses

    return dataclasses.replace(facts, mounts=parse_mountinfo(lines))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["1 0 0:1 / / rw - ext4 x rw"], ProtectSystem.NO),
        (["1 0 0:1 / / rw - ext4 x rw", "2 1 0:1 /usr /usr ro - ext4 x rw"], ProtectSystem.YES),
        (
            [
                "1 0 0:1 / / rw - ext4 x rw",
                "2 1 0:1 /usr /usr ro - ext4 x rw",
                "3 1 0:1 /etc /etc ro - ext4 x rw",
            ],
            ProtectSystem.FULL,
        ),
        (["1 0 0:1 / / ro - ext4 x rw"], ProtectSystem.STRICT),
        (["1 0 0:1 / / ro - ext4 x rw", "2 1 0:1 /var /var rw - ext4 x rw"], ProtectSystem.FULL),
    ],
)
def test_protect_system_is_told_from_mounts(
    facts: dict[str, ProcessFacts | None], lines: list[str], expected: ProtectSystem
) -> None:
    plain = facts["plain.service"]
    assert plain is not None
    assert with_mounts(plain, *lines).protect_system is expected


def test_the_weakest_home_counts(facts: dict[str, ProcessFacts | None]) -> None:
    plain = facts["plain.service"]
    assert plain is not None
    root = "1 0 0:1 / / rw - ext4 x rw"
    read_only = [
        f"2 1 0:1 {path} {path} ro - ext4 x rw" for path in ("/home", "/root", "/run/user")
    ]
    assert with_mounts(plain, root, *read_only).protect_home is ProtectHome.READ_ONLY
    assert with_mounts(plain, root, *read_only[:2]).protect_home is ProtectHome.NO


@pytest.mark.parametrize(
    ("proc", "expected"), [("rw", False), ("rw,hidepid=invisible,subset=pid", True)]
)
def test_kernel_tunables_that_are_not_there_cannot_be_written(
    facts: dict[str, ProcessFacts | None], proc: str, expected: bool
) -> None:
    plain = facts["plain.service"]
    assert plain is not None
    lines = [f"1 0 0:1 / /proc rw - proc proc {proc}", "2 1 0:2 / /sys rw - sysfs sysfs rw"]
    found = with_mounts(plain, *lines)
    assert found.protect_kernel_tunables is expected
    assert not found.sys_is_read_only
    assert found.hides_processes is expected


def test_capabilities_by_name() -> None:
    assert capability_names("0000000000000401") == {"chown", "net_bind_service"}
    assert capability_names("10000000000") == {"checkpoint_restore"}
    assert capability_names("8000000000000000") == {"63"}


def test_processes_tell_only_the_variables_that_were_asked_for(tmp_path: Path) -> None:
    environment = {"OLLAMA_DEBUG": "0", "TOKEN": "secret", "LINES": "a\nOLLAMA_HOST=forged"}
    with subprocess.Popen(["sleep", "60"], env={**os.environ, **environment}) as process:
        try:
            systemctl = tmp_path / "systemctl"
            systemctl.write_text(
                f"#!/bin/sh\necho 'Id=a.service\nNames=a.service\nMainPID={process.pid}'"
            )
            systemctl.chmod(0o755)
            probe = process_facts(["a"], variables=["OLLAMA_DEBUG", "OLLAMA_HOST", "A=*|TOKEN"])
            found = observe(lambda script: here(f"PATH={tmp_path}:$PATH\n{script}"), probe)
        finally:
            process.kill()
    facts = found["a.service"]
    assert facts is not None
    assert (facts.pid, facts.command_line) == (process.pid, "sleep 60")
    assert facts.oom_score_adj == int(Path("/proc/self/oom_score_adj").read_text())
    assert facts.environment == {"OLLAMA_DEBUG": "0"}
