"""What a test's machine lacks is no fault of the host's: the words by which that is told from one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from checks.desktop.test_desktop import _NO_HARDWARE
from checks.units.test_user_logins import _LACKED, _lacks
from checks.users.test_becoming_root import _ASKS_FOR_ANOTHERS
from tests.support.machine import FakeMachine


def found(pattern: str, line: str) -> bool:
    asked = subprocess.run(["grep", "-qiE", "--", pattern], input=line, text=True, check=False)
    return asked.returncode == 0


@pytest.mark.parametrize(
    ("line", "lacked"),
    [
        ("curl: (6) Could not resolve host: example.org", True),
        ("ssh: Temporary failure in name resolution", True),
        ("open /dev/video0: no such file or directory", True),
        ("/home/alice/.config/mpd.conf: no such file or directory", False),
        ("Segmentation fault", False),
    ],
)
def test_a_unit_of_a_user(line: str, lacked: bool) -> None:
    assert found(_LACKED, line) is lacked


def test_such_a_unit_is_unknown_and_another_one_wrong() -> None:
    unknown: dict[str, str] = {}
    machine = FakeMachine({"sync.service": "Could not resolve host: example.org\n"}).as_machine

    assert _lacks(machine, "alice", "sync.service has failed", unknown)
    assert unknown == {
        "alice": "sync.service needs what is not here: Could not resolve host: example.org"
    }
    assert not _lacks(machine, "alice", "sync.service is started again and again", unknown)


@pytest.mark.parametrize(
    ("line", "lacked"),
    [
        ("(EE) no screens found(EE)", True),
        ("[wlr] [render/wlr_renderer.c:308] Software rendering detected", True),
        ("Unable to create the wlroots renderer", True),
        ("Failed to initialize EGL context", True),
        ("NVRM: No NVIDIA GPU found.", True),
        ("gdm: Gdm: Failed to load the session file", False),
        ("pam_unix(greetd:auth): authentication failure", False),
    ],
)
def test_graphics(line: str, lacked: bool, tmp_path: Path) -> None:
    (tmp_path / "journalctl").write_text(f"#!/bin/sh\necho '{line}'\n")
    (tmp_path / "journalctl").chmod(0o755)
    asked = subprocess.run(
        ["bash", "-c", f"PATH={tmp_path}:$PATH\n{_NO_HARDWARE.replace('/var/log', str(tmp_path))}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert bool(asked.stdout.strip()) is lacked


@pytest.mark.parametrize(
    ("line", "others"),
    [
        ("Defaults targetpw", True),
        ("Defaults:alice env_keep, rootpw", True),
        ("Defaults !targetpw", False),
        ("# Defaults targetpw", False),
    ],
)
def test_sudo_that_asks_for_the_password_of_another(
    line: str, others: bool, tmp_path: Path
) -> None:
    (tmp_path / "sudoers").write_text(f"{line}\n")
    asked = _ASKS_FOR_ANOTHERS.replace("/etc/", f"{tmp_path}/")
    assert (subprocess.run(["bash", "-c", asked], check=False, capture_output=True).stdout != b"") is others  # fmt: skip
