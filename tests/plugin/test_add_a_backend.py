"""The how-to about backends, followed to the letter."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.plugin.field import Field

GUIDE = Path(__file__).parents[2] / "docs/how-to/add-a-backend.md"

TESTS = """
import os
import signal

import pytest

from pytest_nixos import Deadline, MachineError, TransportError, poll


def test_answers(nixos_machine):
    assert nixos_machine.run("echo here; exit 3").stdout_text == "here\\n"
    greets = lambda: "Welcome to the desk!" in nixos_machine.console.tail() or None
    assert poll(greets, deadline=Deadline.after(20), interval_s=0.01)


def test_hang(nixos_machine, nixos_faults):
    path = f"/proc/{nixos_machine.running._process.pid}/stat"

    def becomes(stopped):
        look = lambda: (open(path).read().split()[2] == "T") is stopped or None
        return poll(look, deadline=Deadline.after(20), interval_s=0.01)

    with nixos_faults.hang():
        assert becomes(True)
    assert becomes(False)


def test_what_it_cannot_do(nixos_machine):
    assert nixos_machine.boots_from is None
    with pytest.raises(MachineError, match="cannot switch a machine off"):
        nixos_machine.power_off(orderly=True)


@pytest.mark.nixos_destructive
def test_killed(nixos_fresh_machine):
    os.kill(nixos_fresh_machine.running._process.pid, signal.SIGKILL)
    nixos_fresh_machine.running._process.wait_ended(10)
    with pytest.raises(TransportError, match="the desk machine ended by signal 9") as caught:
        nixos_fresh_machine.run("true")
    assert caught.value.remedy == "find out who ended it"
"""


@pytest.fixture
def desk(field: Field) -> Field:
    files = dict(re.findall(r"`([\w.]+)`:\n\n```python\n(.*?)```", GUIDE.read_text(), re.DOTALL))
    assert set(files) == {"desk_backend.py", "conftest.py"}
    for name, text in files.items():
        (field.pytester.path / name).write_text(text)
    return field


def test_the_guide_makes_a_backend(desk: Field) -> None:
    desk.pytester.makepyfile(TESTS)
    desk.run("--nixos-flake", ".#web", "--nixos-suite", "none").assert_outcomes(passed=4)


def test_a_machine_that_does_not_come_up_is_told_with_its_remedy(desk: Field) -> None:
    path = desk.pytester.path / "desk_backend.py"
    text = path.read_text().replace(
        "echo Welcome to the desk!; exec sleep 3600", "echo no such board"
    )
    text = text.replace(
        "        channel = Desk", "        self._process.wait_ended(10)\n        channel = Desk"
    )
    path.write_text(text)
    desk.pytester.makepyfile("def test_it(nixos_machine): pass")
    result = desk.run("--nixos-flake", ".#web", "--nixos-suite", "none")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*the desk machine ended with exit status 0*", "*plug the board in*"]
    )


def test_what_a_backend_lacks_is_told_before_anything_is_built(
    desk: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = desk.pytester.path / "builds.log"
    monkeypatch.setenv("FAKE_NIX_BUILDS", str(builds))
    path = desk.pytester.path / "desk_backend.py"
    lacking = """
    def preflight(self, name):
        raise MachineError(f"{name}: no desk here", remedy="apt install desk")

    def start("""
    path.write_text(path.read_text().replace("\n    def start(", lacking, 1))
    desk.pytester.makepyfile("def test_it(nixos_machine): pass")
    result = desk.run("--nixos-flake", ".#web", "--nixos-suite", "none", "-v")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*web: no desk here*", "*apt install desk*"])
    assert not builds.exists()
