"""A pytest plugin that notes when each phase of a run is reached, on a clock that begins with
the process.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.bench.inside.machines import processor_s

_TICKS = os.sysconf("SC_CLK_TCK")


def _process_start_s() -> float:
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / _TICKS


class Phases:
    """Marks of one run."""

    def __init__(self) -> None:
        self._start_s = _process_start_s()
        self.at_s: dict[str, float] = {}
        self.processor_s: dict[str, float] = {}
        self.machine_processor_s = 0.0
        self.tests_s: dict[str, float] = {}

    def mark(self, name: str) -> None:
        """Note when a phase is reached for the first time."""
        if name in self.at_s:
            return
        self.at_s[name] = time.clock_gettime(time.CLOCK_BOOTTIME) - self._start_s
        self.processor_s[name] = time.process_time()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionstart(self) -> Generator[None, None, None]:
        self.mark("session")
        yield
        self.mark("opened")

    def pytest_collection_finish(self) -> None:
        self.mark("collected")

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_nixos_machine_spec(self) -> None:
        self.mark("machine wanted")

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_nixos_machine_booted(self) -> None:
        self.mark("machine ready")
        if os.environ.get("PYTEST_NIXOS_BENCH_MACHINE") and not self.machine_processor_s:
            self.machine_processor_s = processor_s()[1]

    @pytest.hookimpl(trylast=True, optionalhook=True)
    def pytest_nixos_finding(self) -> None:
        self.mark("first finding")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        started_s = time.monotonic()
        result = yield
        self.tests_s[item.name] = time.monotonic() - started_s
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self.mark("last test")

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        self.mark("end")
        path = os.environ.get("PYTEST_NIXOS_BENCH_PHASES")
        if path:
            told = {
                "at_s": self.at_s,
                "processor_s": self.processor_s,
                "machine_processor_s": self.machine_processor_s,
                "tests_s": self.tests_s,
            }
            Path(path).write_text(json.dumps(told))


class Memory:
    """Tells what a worker of xdist needed at most."""

    def __init__(self, worker: str) -> None:
        self._worker = worker

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        path = os.environ.get("PYTEST_NIXOS_BENCH_PHASES")
        if path:
            status = Path("/proc/self/status").read_text()
            Path(f"{path}.{self._worker}").write_text(status.partition("VmHWM:")[2].split()[0])


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(Memory(config.workerinput["workerid"]), "bench-memory")
    else:
        phases = Phases()
        phases.mark("configure")
        config.pluginmanager.register(phases, "bench-phases")
