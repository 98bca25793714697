"""Live hosts of a flake: one address for each, several at once, and one that is away costs its own
findings only.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import SettingsError
from pytest_nixos.machine.ssh.backend import SshBackend
from pytest_nixos.plugin.machines.launch import bundled_backend
from pytest_nixos.plugin.settings.options import Settings
from tests.plugin.field import CONFTEST, Field

# Connecting takes a moment; how many connections stand is written down.
LIVE = """

class Live(FakeBackend):
    name = BackendName.SSH

    def start(self, spec, *, deadline):
        import time
        running = super().start(spec, deadline=deadline)
        time.sleep(1)
        return running


def pytest_nixos_backends(config, settings):
    return {{"ssh": Live()}}
"""
CHECKS = """
import pytest

@pytest.mark.nixos_control("BOOT-001")
def test_boot(nixos_machine):
    assert nixos_machine.run("echo there").stdout == b"there\\n"

@pytest.mark.nixos_control("BOOT-002")
def test_more(nixos_observations):
    pass
"""
FLEET = ("--nixos-ssh", "root@{host}.example.org", "--nixos-report", "json:report.json")


@pytest.fixture
def fleet(field: Field, monkeypatch: pytest.MonkeyPatch) -> Field:
    monkeypatch.setenv("FAKE_NIX_HOSTS", "a b panics c")
    field.pytester.makeconftest((CONFTEST + LIVE).format(log=str(field.log)))
    field.pytester.makepyfile(CHECKS)
    return field


def most_at_once(log: list[str]) -> int:
    open_now, most = 0, 0
    for line in log:
        word, _, host = line.partition(" ")
        if host != "panics":
            open_now += 1 if word == "start" else -1
            most = max(most, open_now)
    assert open_now == 0, log
    return most


@pytest.mark.parametrize(("at_once", "most"), [("1", 1), ("3", 3)])
def test_so_many_hosts_at_once(fleet: Field, at_once: str, most: int) -> None:
    result = fleet.run_hosts(*FLEET, "--nixos-ssh-at-once", at_once)
    result.stdout.fnmatch_lines(["*6 passed, 1 error, 1 not judged*"])
    found = {(f["host"], f["control"]): f["outcome"] for f in fleet.report()["findings"]}
    assert {host for (host, _), outcome in found.items() if outcome == "error"} == {"panics"}
    assert len(found) == 8
    assert {f["backend"] for f in fleet.report()["findings"]} == {"ssh"}
    assert most_at_once(fleet.machine_log) == most


def test_one_address_is_not_several_hosts(fleet: Field) -> None:
    result = fleet.run_hosts("--nixos-ssh", "root@192.0.2.1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --nixos-ssh root@192.0.2.1: is one host, and this run tests 4: a, b, c, panics"]
    )
    assert fleet.machine_log == []
    fleet.run("--nixos-flake", ".#a", "--nixos-suite", "none", "--nixos-ssh", "root@192.0.2.1")
    assert fleet.machine_log == ["start a", "stop a"]


def test_an_address_in_a_file_starts_no_connection_by_itself(fleet: Field) -> None:
    fleet.pytester.makeini("[pytest]\nnixos_ssh = root@{host}.example.org\n")
    assert settings_of(fleet.pytester).backend is None
    assert settings_of(fleet.pytester, "--nixos-backend", "ssh").backend is BackendName.SSH


def settings_of(pytester: pytest.Pytester, *arguments: str) -> Settings:
    return Settings.from_config(pytester.parseconfig("-p", "no:randomly", *arguments))


def test_each_host_has_its_own_address(pytester: pytest.Pytester, tmp_path: Path) -> None:
    settings = settings_of(pytester, "--nixos-ssh", "root@{host}.example.org")
    assert settings.backend is BackendName.SSH
    backend = bundled_backend(BackendName.SSH, settings, lambda _: None, host="web")
    assert isinstance(backend, SshBackend)
    assert backend._address == "root@web.example.org"


@pytest.mark.parametrize("address", ["root@{name}", "root@{host", "root@host}"])
def test_a_bad_address(pytester: pytest.Pytester, address: str) -> None:
    with pytest.raises(SettingsError, match=r"only \{host\} stands for a name"):
        settings_of(pytester, "--nixos-ssh", address)
