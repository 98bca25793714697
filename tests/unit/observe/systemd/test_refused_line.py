"""What programs of systemd refused of their configuration, as journalctl prints it."""

from __future__ import annotations

import json

import pytest

from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.observe.systemd.refused_line import (
    RefusedLines,
    refused_lines,
    refused_on_console,
)

RULES = "/etc/tmpfiles.d/00-nixos.conf"


def entry(file: str, line: int, text: str, priority: int = 3) -> str:
    fields = {"CONFIG_FILE": file, "CONFIG_LINE": str(line), "PRIORITY": str(priority)}
    return json.dumps({**fields, "MESSAGE": f"{file}:{line}: {text}"})


def read(*entries: str, kernel: str = "", status: int = 0) -> RefusedLines:
    text = "=journal\n" + "\n".join(entries) + f"\n=kernel\n{kernel}\n"
    return refused_lines().parse(ProbeOutput(stdout=text.encode(), exit_status=status))


def test_a_line_that_three_runs_refuse_is_told_once() -> None:
    said = entry(RULES, 4, "Failed to resolve user 'nobody-here': No such process")
    seen = read(said, said, said)
    assert seen.answered
    assert [str(line) for line in seen.lines] == [
        f"{RULES}:4: Failed to resolve user 'nobody-here': No such process"
    ]


@pytest.mark.parametrize(
    "said",
    [
        entry(RULES, 9, "Duplicate line for path", priority=5),
        entry("/etc/systemd/system/web.service", 3, "Unknown key name"),
        entry("/etc/systemd/system/web.service.d/overrides.conf", 3, "Unknown key name"),
        entry("/nix/store/eee-systemd/example/tmpfiles.d/x.conf", 3, "Unknown command type"),
        "not JSON",
        "[1]",
        "{}",
    ],
)
def test_what_is_no_refusal_of_the_hosts_configuration(said: str) -> None:
    assert read(said).lines == ()


def test_a_journal_that_does_not_answer_is_no_pass() -> None:
    assert not read(status=3).answered


def test_what_systemd_said_before_there_was_a_journal() -> None:
    said = "systemd[1]: /etc/systemd/system.conf:4: Unknown key 'DefaultTimeout' in section [Manager], ignoring."
    of_unit = "systemd[1]: /etc/systemd/system/a.service.d/overrides.conf:4: Unknown key"
    (line,) = refused_on_console([f"[    2.1] {said}", of_unit, "login:"])
    assert (line.file, line.line) == ("/etc/systemd/system.conf", 4)
    assert read(kernel=said).lines == (line,)
