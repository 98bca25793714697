"""What sshd -T prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos.observe.fact import fact_probe
from pytest_nixos.observe.network.sshd import CASES, SSHD_FACTS, parse_sshd
from tests.unit.observe.here import ask


def test_sshd_settings() -> None:
    text = "port 22\nport 2222\nciphers a,b\nallowusers alice bob\npermitrootlogin no\n"
    assert SSHD_FACTS["settings"].parse(text) == {
        "port": ["22", "2222"],
        "ciphers": ["a", "b"],
        "allowusers": ["alice", "bob"],
        "permitrootlogin": "no",
    }


def test_what_others_get_is_told_by_case() -> None:
    text = (
        "passwordauthentication no\nport 22\n"
        "=case user=alice addr=192.0.2.1\npasswordauthentication yes\nport 22\n"
        "=case user=bob addr=192.0.2.1\npasswordauthentication no\nport 22\n"
        "=case user=eve addr=10.0.0.0\n"
    )
    settings = parse_sshd(text)
    assert settings["passwordauthentication"] == "no"
    # What sshd did not answer is no case, and neither is what is the same.
    assert settings[CASES] == {"user=alice addr=192.0.2.1": {"passwordauthentication": "yes"}}


def test_without_other_cases_there_is_nothing_more() -> None:
    assert parse_sshd("port 22\n=case user=a addr=b\nport 22\n") == {"port": ["22"]}


@pytest.mark.parametrize(
    ("config", "asked_for"),
    [
        ("Port 22\n", {"root"}),
        ("Port 22\n\tmatch User eve\n  Port 23\n", {"root", "eve"}),
        ("Include /etc/ssh/more/*\n", {"root"}),
    ],
    ids=["nobody else", "a Match block", "another file"],
)
def test_others_are_asked_for_where_they_may_get_something_else(
    config: str, asked_for: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(config)
    start = f"{{ path=/x ; argv[]=/x -D -f {tmp_path}/config -o Port=24 ; ignore_errors=no ; }}"
    put(tmp_path / "systemctl", f"printf 'MainPID=1\\nExecStart=%s\\n' '{start}'")
    put(tmp_path / "sshd", f'echo "$*" >>{tmp_path}/asked; echo port 22')
    put(tmp_path / "getent", "echo root:x:0:0::/root:/bin/sh")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert ask(fact_probe("sshd", SSHD_FACTS, ["settings"]))["settings"]["port"] == ["22"]
    calls = (tmp_path / "asked").read_text().splitlines()
    assert all(f"-f {tmp_path}/config -o Port=24 -C user=" in call for call in calls)
    assert {call.partition("user=")[2].partition(",")[0] for call in calls} == asked_for
    from_elsewhere = any("addr=192.0.2.1" in call for call in calls)
    assert from_elsewhere is (config != "Port 22\n")


def put(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/bash\n{script}\n")
    program.chmod(0o755)
