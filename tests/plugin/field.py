"""A directory with a flake, a fake ``nix`` and a fake backend, for the plugin's tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

__all__ = ["CONFTEST", "Field"]

# A machine that is a shell on this very machine: the tests send it nothing but echo and cat.
CONFTEST = """
import subprocess
from pathlib import Path

from pytest_nixos.errors import BootError, TransportError
from pytest_nixos.machine.base import BackendName
from pytest_nixos.machine.capabilities import PortState
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.machine.console import Console

LOG = Path({log!r})


class Shell:
    def run(self, command, *, deadline, stdin=b""):
        if command == "die":
            raise TransportError("the guest is gone", remedy="look at the console")
        done = subprocess.run(["bash", "-c", command], input=stdin, capture_output=True)
        return CommandResult(command=command, exit_status=done.returncode, stdout=done.stdout,
                             stderr=done.stderr, duration_s=0.0)

    def close(self):
        pass


class Running:
    def __init__(self, name):
        self.name = name
        self.console = Console()
        self.transport = Shell()

    def is_alive(self):
        return True

    def probe_tcp(self, ports, *, deadline):
        return {{port: PortState.CLOSED for port in ports}}

    def stop(self):
        with LOG.open("a") as log:
            log.write(f"stop {{self.name}}\\n")


class FakeBackend:
    name = BackendName.VM

    def start(self, spec, *, deadline):
        with LOG.open("a") as log:
            log.write(f"start {{spec.host.name}}\\n")
        if spec.host.name == "panics":
            raise BootError("panics: kernel panic after 1 s", remedy="mend the kernel",
                            state="kernel panic", console_tail=["Kernel panic - not syncing"])
        return Running(spec.host.name)


def pytest_nixos_backends(config, settings):
    return {{"vm": FakeBackend()}}
"""


@dataclass(frozen=True, slots=True)
class Field:
    """A directory with a flake, a fake ``nix`` that knows its hosts, and a fake backend."""

    pytester: pytest.Pytester
    log: Path

    def run(self, *arguments: str) -> pytest.RunResult:
        """Run pytest in a process of its own, as a user does."""
        return self.pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)

    def run_hosts(self, *arguments: str) -> pytest.RunResult:
        """Run the user's own tests on every host of the flake."""
        return self.run("--nixos-flake", ".", "--nixos-suite", "none", *arguments)

    def report(self) -> Any:
        """Read the JSON report of the last run."""
        return json.loads((self.pytester.path / "report.json").read_text())

    @property
    def machine_log(self) -> list[str]:
        """What was started and stopped."""
        return self.log.read_text().splitlines() if self.log.exists() else []
