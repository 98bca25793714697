"""The command line: what it prints is fit for a terminal, and what is wrong is one error with a remedy."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from pytest_nixos.cli import hosts
from pytest_nixos.cli.main import main
from pytest_nixos.errors import FlakeError


def test_names_of_hosts_are_made_printable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flake = SimpleNamespace(host_names=lambda: ["web", "\x1b]0;evil\x07\u202edb\nrow"])
    monkeypatch.setattr(hosts, "default_flake", lambda *_: flake)
    assert main(["hosts", "."]) == 0
    assert capsys.readouterr().out == "web\n\ufffd]0;evil\ufffd\ufffddb\nrow\n"


def test_an_error_is_made_printable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> list[str]:
        raise FlakeError("no \x1b[31mflake", remedy="name one")

    monkeypatch.setattr(hosts, "default_flake", lambda *_: SimpleNamespace(host_names=refuse))
    assert main(["hosts", "."]) == 4
    assert capsys.readouterr().err == "ERROR: no \ufffd[31mflake\n  remedy: name one\n"


@pytest.mark.parametrize("command", ["doctor", "hosts", "build", "controls", "cache"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"pytest-nixos {command}" in capsys.readouterr().out


def test_a_control_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["controls", "BOOT-001"]) == 0
    assert capsys.readouterr().out.startswith("BOOT-001  No unit has failed\n")


def test_the_command_line_loads_no_pytest() -> None:
    program = (
        "import sys, pytest_nixos.cli.main;"
        "print(*sorted({'pytest', '_pytest', 'pytest_nixos.plugin'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == ""
