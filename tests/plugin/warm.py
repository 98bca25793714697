"""A field whose host is evaluated, built and has a snapshot: machines of it may be clones."""

from __future__ import annotations

import json

import pytest

from tests.plugin.field import CONFTEST, Field

__all__ = ["clones", "make_warm", "run_web"]

CLONES = """
import threading, time
from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Recalled

class Clone(Running):
    rested = False

    def rest(self, *, deadline):
        self.rested = True
        with LOG.open("a") as log:
            log.write(f"rest {{self.name}}\\n")

    def rouse(self, *, deadline):
        if self.rested:
            with LOG.open("a") as log:
                log.write(f"rouse {{self.name}}\\n")

class Cloning(FakeBackend):
    def clone(self, spec, *, deadline):
        thread = "ahead" if threading.current_thread() is not threading.main_thread() else "main"
        with LOG.open("a") as log:
            log.write(f"clone {{spec.host.name}} {{thread}}\\n")
        end_s = time.monotonic() + {sleep_s}
        try:
            while time.monotonic() < end_s and not deadline.expired:
                time.sleep(0.05)
        except Recalled:
            with LOG.open("a") as log:
                log.write(f"gave up {{spec.host.name}}\\n")
            raise
        if {fails}:
            raise MachineError("no snapshot", remedy="boot it")
        return Clone(spec.host.name)

def pytest_nixos_backends(config, settings):
    return {{"vm": Cloning()}}
"""


def make_warm(field: Field, monkeypatch: pytest.MonkeyPatch) -> Field:
    """A host that is evaluated and built, on a backend that has a snapshot of it."""
    store = field.pytester.mkdir("store")
    for name in ("web.drv", "o"):
        (store / name).touch()
    monkeypatch.setenv("FAKE_NIX_HOSTS", "web")
    monkeypatch.setenv("FAKE_NIX_STORE", str(store))
    monkeypatch.setenv("FAKE_NIX_CONTENT", "as-before")
    path = field.pytester.path / "document.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"output": str(store / "o")}))
    clones(field)
    # Evaluates the host for the runs after it.
    field.pytester.makepyfile(test_first="def test_a(nixos_host_config): pass")
    run_web(field).assert_outcomes(passed=1)
    (field.pytester.path / "test_first.py").unlink()
    field.log.unlink(missing_ok=True)
    return field


def clones(field: Field, *, fails: bool = False, sleep_s: float = 0.0) -> None:
    """Have clones that fail, or take a while.

    :param fails: whether there is no snapshot.
    """
    base = CONFTEST.format(log=str(field.log))
    field.pytester.makeconftest(base + CLONES.format(fails=fails, sleep_s=sleep_s))


def run_web(field: Field, *arguments: str) -> pytest.RunResult:
    """Run the user's own tests on one host."""
    return field.run("--nixos-flake", ".#web", "--nixos-suite", "none", *arguments)
