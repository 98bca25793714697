"""What ``lib.judge`` runs inside of the NixOS test driver; a script stands for pytest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.driver_machine import ShellMachine, in_driver

# Asks for one command as the transport does, and ends as it is told.
ASKING = """
import json, socket, sys
arguments = dict(zip(sys.argv[2::2], sys.argv[3::2]))
driver = socket.socket(socket.AF_UNIX)
driver.connect(arguments["--nixos-test-driver"])
driver.sendall(json.dumps({"command": "echo here; exit 7", "timeout_s": 20}).encode() + b"\\n")
print("answer", driver.makefile().readline().strip(), flush=True)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[ShellMachine]:
    machine = ShellMachine(tmp_path / "out")
    machine.out_dir.mkdir()
    yield machine
    machine.end()


def judge(machine: ShellMachine, tmp_path: Path, status: int, **more: Any) -> None:
    program = tmp_path / "asking.py"
    program.write_text(more.pop("program", ASKING))
    spec = {
        "name": "web",
        "enforce": True,
        "command": [sys.executable, str(program), str(status)],
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec | more))
    in_driver()["judge"](machine, str(tmp_path / "spec.json"))


def test_pytest_reaches_the_machine_and_reports_lie_in_the_output(
    machine: ShellMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(machine, tmp_path, 0)
    reports = machine.out_dir / "pytest-nixos-web"
    answer = 'answer {"status": 7, "output": "here\\n"}\n'
    assert capsys.readouterr().out == answer
    assert (reports / "log.txt").read_text() == answer
    assert (reports / "exit-status").read_text() == "0\n"
    products = (machine.out_dir / "nix-support/hydra-build-products").read_text()
    assert f"file json {reports}/report.json\n" in products


def test_a_failed_check_fails_the_test(machine: ShellMachine, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="web: failed checks are told above"):
        judge(machine, tmp_path, 1)


def test_who_only_wants_reports_gets_them(machine: ShellMachine, tmp_path: Path) -> None:
    judge(machine, tmp_path, 1, enforce=False)
    assert (machine.out_dir / "pytest-nixos-web/exit-status").read_text() == "1\n"


@pytest.mark.parametrize("status", [2, 3, 4, 5])
def test_no_verdict_fails_the_test_always(
    machine: ShellMachine, tmp_path: Path, status: int
) -> None:
    with pytest.raises(RuntimeError, match=f"no verdict: pytest ended with {status}"):
        judge(machine, tmp_path, status, enforce=False)


def test_two_machines_of_a_test_have_reports_of_their_own(
    machine: ShellMachine, tmp_path: Path
) -> None:
    judge(machine, tmp_path, 0)
    judge(machine, tmp_path, 0, name="db")
    products = (machine.out_dir / "nix-support/hydra-build-products").read_text()
    assert "/pytest-nixos-web report.html\n" in products
    assert "/pytest-nixos-db report.html\n" in products


def test_what_the_driver_raises_is_told_to_pytest(
    machine: ShellMachine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.end()
    judge(machine, tmp_path, 0)
    assert '"error": "' in capsys.readouterr().out


def test_a_hung_guest_does_not_hold_the_driver_for_ever(
    machine: ShellMachine, tmp_path: Path
) -> None:
    functions = in_driver()
    functions["judge"].__globals__["_STUCK_S"] = 0.5
    # It gives up waiting, as the transport does.
    program = ASKING.replace("print(", "driver.settimeout(1)\ntry: print(").replace(
        "flush=True)", "flush=True)\nexcept TimeoutError: sys.exit(1)"
    )
    (tmp_path / "asking.py").write_text(program)
    spec = {
        "name": "web",
        "enforce": True,
        "command": [sys.executable, str(tmp_path / "asking.py"), "0"],
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    machine.hang()
    started_s = time.monotonic()
    with pytest.raises(AssertionError):
        functions["judge"](machine, str(tmp_path / "spec.json"))
    assert time.monotonic() - started_s < 20


def test_pytest_does_not_outlive_the_driver(tmp_path: Path) -> None:
    """The driver's own timeout ends it with SIGTERM in the middle of the test script."""
    program = tmp_path / "sleeping.py"
    program.write_text("import os, time; print(os.getpid(), flush=True); time.sleep(300)")
    (tmp_path / "spec.json").write_text(
        json.dumps({"name": "web", "enforce": True, "command": [sys.executable, str(program)]})
    )
    program_of_the_driver = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(1)); "
        "from pathlib import Path; from tests.support.driver_machine import *; "
        f"in_driver()['judge'](ShellMachine(Path({str(tmp_path)!r})), {str(tmp_path / 'spec.json')!r})"
    )
    driver = subprocess.Popen(
        [
            sys.executable,
            "-c",
            program_of_the_driver,
        ],
        cwd=Path(__file__).parents[4],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    pid = int(driver.stdout.readline())
    os.kill(driver.pid, signal.SIGTERM)
    threading.Thread(target=driver.communicate).start()
    driver.wait(30)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
