"""A command for each control, to be pasted."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from pytest_nixos.nix.command.refs import FlakeRef, HostRef
from pytest_nixos.nix.config.host_facts import parse_host_config
from pytest_nixos.standards.judging.by_hand import by_hand
from pytest_nixos.standards.load import load_catalogue
from pytest_nixos.subject import Subject
from tests.unit.host_documents import document

CATALOGUE = load_catalogue([])
HOST = parse_host_config(HostRef(FlakeRef("path:/etc/nixos"), "web"), document(), option_paths=())
#: About the flake's text, shells, images and clusters: no single command of the host shows it.
WITHOUT = {"source-scan", "store-scan", "declaration"}


def test_every_control_that_looks_at_a_machine_has_a_command() -> None:
    silent = [
        control.id
        for control in CATALOGUE
        if control.observed is not None
        and control.observed.kind not in WITHOUT
        and "{" not in str(control.observed.parameters)
        and not by_hand(control, HOST)
    ]
    assert silent == []


def test_commands_are_ones_that_a_shell_can_read() -> None:
    bash = shutil.which("bash")
    assert bash is not None
    commands = [by_hand(control, HOST) for control in CATALOGUE]
    text = "\n".join(command for command in commands if command)
    done = subprocess.run([bash, "-n"], input=text, text=True, capture_output=True, check=False)
    assert done.stderr == "" and len(commands) > 400


@pytest.mark.parametrize(
    ("control", "command"),
    [
        ("SSH-001", "sshd -T | grep -i '^permitrootlogin '"),
        ("FS-001", "findmnt /tmp"),
        ("MEM-007", "sysctl vm.dirty_ratio vm.dirty_background_ratio"),
        ("AUD-018", "cat /etc/audit/auditd.conf"),
        ("GEN-011", "find /etc -xtype l; readlink -f /etc/static"),
        ("UPD-005", "systemctl show -p Id,Result,ExecMainStatus nixos-upgrade.service"),
    ],
)
def test_command_shows_what_the_control_looks_at(control: str, command: str) -> None:
    assert by_hand(CATALOGUE.control(control), HOST) == command


def test_a_scan_has_the_command_that_looks_for_the_same() -> None:
    """Never one for all scans: a search for files without an owner shows no dead link."""
    commands = {
        str(control.observed.parameters["fact"]): by_hand(control, HOST)
        for control in CATALOGUE
        if control.observed is not None and control.observed.kind == "scan"
    }
    assert len(commands) > 5 and "" not in commands.values()
    assert len(set(commands.values())) == len(commands)


def test_unit_that_is_blamed_is_asked_itself_and_quoted() -> None:
    blamed = (Subject.parse("unit:notes.service"), Subject.parse("unit:x;rm -rf /.service"))
    assert by_hand(CATALOGUE.control("BOOT-001"), HOST, blamed) == (
        "systemctl status --no-pager notes.service"
    )
