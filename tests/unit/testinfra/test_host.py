"""testinfra over a transport: quoting, limits, epochs, and testinfra's own ``nixos://`` hosts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import testinfra
import testinfra.backend

from pytest_nixos.errors import MachineError
from pytest_nixos.local.process import ProcessTimeout, SubprocessRunner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.command import CommandResult, Transport
from pytest_nixos.testinfra import NixosHost, make_host, nixos_scheme


class Here:
    """A transport to this machine."""

    def __init__(self, path: str = "") -> None:
        self.env = {"PATH": path} if path else {}
        self.commands: list[str] = []

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        self.commands.append(command)
        done = SubprocessRunner().run(
            ["bash", "-c", command], deadline=deadline, stdin=stdin, env=self.env
        )
        return CommandResult(
            command=command,
            exit_status=done.exit_status,
            stdout=done.stdout,
            stderr=done.stderr,
            duration_s=0.0,
        )

    def close(self) -> None:
        pass


class MachineHere(Machine):
    """A machine that is this one."""

    def __init__(self) -> None:
        self.epoch = 1
        self.here = Here()

    def deadline(self, limit_s: float) -> Deadline:
        return Deadline.after(limit_s)

    @property
    def name(self) -> str:
        return "web-1"

    @property
    def transport(self) -> Transport:
        return self.here


@pytest.fixture
def host() -> NixosHost:
    return make_host(Here(), name="web-1")


def test_arguments_are_quoted(host: NixosHost) -> None:
    text = "$(id) 'x' \"y\" %s \n z"
    assert host.check_output("printf %%s %s", text) == text


def test_output_is_bytes_apart_and_text_on_demand(host: NixosHost) -> None:
    done = host.run(r"printf '\xff\0a'; printf 'caf\xc3\xa9' >&2; exit 7")
    assert (done.rc, done.stdout_bytes, done.stderr) == (7, b"\xff\0a", "café")
    assert done.stdout == "\ufffd\0a"


def test_standard_input_and_limits_are_passed_on(host: NixosHost) -> None:
    assert host.run("cat", stdin=b"\x00in").stdout_bytes == b"\x00in"
    with pytest.raises(ProcessTimeout):
        host.run("sleep 20", timeout_s=0.2)


def test_a_misspelt_option_is_an_error(host: NixosHost) -> None:
    with pytest.raises(TypeError, match="timeout_s and stdin, not timeout"):
        host.run("true", timeout=3)


def test_the_host_is_named_as_the_machine() -> None:
    assert repr(make_host(MachineHere())) == "<testinfra.host.Host nixos://web-1>"


def test_unknown_modules_are_attribute_errors(host: NixosHost) -> None:
    with pytest.raises(AttributeError, match="servise"):
        _ = host.servise


def test_commands_are_found_outside_path(host: NixosHost, tmp_path: Any) -> None:
    tool = tmp_path / "some tool"
    tool.write_text("#!/bin/sh\n")
    with pytest.raises(ValueError, match="some tool"):
        host.find_command("some tool", extrapaths=[str(tmp_path)])
    tool.chmod(0o755)
    assert host.find_command("some tool", extrapaths=[str(tmp_path)]) == str(tool)
    assert host.exists("bash")
    assert not host.exists("no-such-program")


def test_modules_forget_when_the_machine_changes() -> None:
    machine = MachineHere()
    host = make_host(machine)
    before = host.system_info
    assert before.type == "linux"
    assert host.system_info is before
    asked = len(machine.here.commands)
    assert host.system_info.release == before.release
    assert len(machine.here.commands) == asked
    machine.invalidate()
    assert host.system_info is not before
    assert host.system_info.type == "linux"
    assert len(machine.here.commands) > asked


def test_each_host_is_a_fresh_one() -> None:
    here = Here()
    assert make_host(here) is not make_host(here)


def test_other_users_need_no_sudo(host: NixosHost) -> None:
    if host.check_output("id -u") != "0":
        pytest.skip("only root can become another user")
    with host.sudo("nobody"):
        assert host.check_output('echo "$(id -un) $USER $HOME"').split()[:2] == ["nobody"] * 2
        assert host.check_output("printf %%s %s", "it's") == "it's"
    with host.sudo():
        assert host.check_output("id -u") == "0"
    assert host.check_output("id -un") == "root"


@pytest.fixture
def scheme() -> Iterator[MachineHere]:
    machine = MachineHere()
    with nixos_scheme(lambda name: machine if name == "web-1" else None):
        yield machine


def test_testinfra_understands_nixos_hosts_while_asked_to(scheme: MachineHere) -> None:
    host = testinfra.get_host("nixos://web-1")
    assert isinstance(host, NixosHost)
    assert host.check_output("echo hi") == "hi"
    assert testinfra.get_hosts(["nixos://web-1"])[0].exists("bash")
    with pytest.raises(MachineError, match="no machine of that name"):
        testinfra.get_host("nixos://other")


def test_nothing_of_the_scheme_remains() -> None:
    with nixos_scheme(lambda _name: MachineHere()):
        testinfra.get_host("nixos://web-1")
    assert "nixos" not in testinfra.backend.BACKENDS
    with pytest.raises(RuntimeError, match="Unknown connection type"):
        testinfra.get_host("nixos://web-1")
