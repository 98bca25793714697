"""What is read of a NixOS container's isolation."""

from __future__ import annotations

import subprocess

from checks.containers.isolation import SCRIPT, parse

GOOD = "leader=7 pid=no mnt=no ipc=no uts=no net=no user=no root=1234 file=hidden process=hidden"


def test_isolated_container() -> None:
    (found,) = parse(f"web {GOOD}\n").values()
    assert found.running
    assert found.problems == ()


def test_each_sign_is_told() -> None:
    signs = {
        "pid=no": "pid=yes",
        "net=no": "net=yes",
        "user=no": "user=yes",
        "root=1234": "root=0",
        "file=hidden": "file=seen",
        "process=hidden": "process=seen",
    }
    for good, bad in signs.items():
        (found,) = parse(f"web {GOOD.replace(good, bad)}\n").values()
        assert len(found.problems) == 1, bad


def test_what_was_not_read_is_no_isolation() -> None:
    (found,) = parse("web leader=7 pid=no\n").values()
    assert "shares the host's user namespace" in found.problems


def test_container_that_does_not_run() -> None:
    assert not parse("web leader=\n")["web"].running


def test_script_is_bash() -> None:
    done = subprocess.run(["bash", "-n"], input=SCRIPT.encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
