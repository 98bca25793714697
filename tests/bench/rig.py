"""What every measurement needs: where things are, pytest as a user runs it, and the bare VM."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "example-flake"
INSIDE = ROOT / "tests/bench/inside"
HOST = "llm-host"
# Together they select nearly every control that a machine of the example flake can be asked about.
PROFILES = tuple(
    f"--nixos-profile={name}"
    for name in (
        *("baseline", "hardened", "stig", "anssi-enhanced", "hipaa", "llm-host", "nats-node"),
        *("constrained-hardware", "declared"),
    )
)
BOOT_LIMIT_S = 900
RUN_LIMIT_S = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured.

    :param runs: of what takes seconds to minutes.
    :param quick: whether only to try that everything works.
    """

    runs: int
    quick: bool

    def count(self, wanted: int) -> int:
        """Return how often to do something that takes milliseconds."""
        return min(wanted, 3) if self.quick else wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of pytest.

    :param at_s: seconds from the command to each event; see ``inside/phases.py``.
    :param processor_s: processor time of pytest's own process until each event.
    :param machine_processor_s: that of QEMU until the machine was ready, where
        ``PYTEST_NIXOS_BENCH_MACHINE`` was set.
    :param all_processor_s: that of the whole run, with all that it started.
    :param tests_s: seconds of each test, what it had to be set up included.
    :param findings: lines of the ledger.
    :param workers_mib: peak resident memory of each of xdist's workers.
    """

    at_s: Mapping[str, float]
    processor_s: Mapping[str, float]
    machine_processor_s: float
    total_s: float
    all_processor_s: float
    tests_s: Mapping[str, float]
    findings: Sequence[Mapping[str, Any]]
    output: str
    workers_mib: Sequence[float] = ()


class RunFailed(Exception):
    """A run that should have worked did not; its output is the message."""


def say(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


def overrides(option: str = "--nixos-override-input", *, below: str = "") -> list[str]:
    """Replace the inputs of the example's flake.

    :param below: the input that it is of the flake in question, ``""`` where it is that itself.
    """
    replaced: dict[str, str] = json.loads(os.environ["PYTEST_NIXOS_TEST_OVERRIDES"])
    above = f"{below}/" if below else ""
    return [word for name, ref in replaced.items() for word in (option, f"{above}{name}", ref)]


def run_pytest(
    home: Path,
    *arguments: str,
    flakes: Sequence[str] = (f".#{HOST}",),
    cwd: Path = EXAMPLE,
    environment: Mapping[str, str] | None = None,
    may_fail: bool = False,
    example: str = "",
) -> Run:
    """Run pytest as a user does, with the caches of `home`.

    :param example: the input of the flake that the example is, ``""`` where it is the flake.
    :param may_fail: whether findings may be violated.
    :raises RunFailed: if it does not end as it should.
    """
    state = Path(tempfile.mkdtemp(prefix="state-", dir=home))
    phases = state / "phases.json"
    hosts = [word for flake in flakes for word in ("--nixos-flake", flake)]
    hosts += overrides(below=example) if flakes else []
    argv = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *("-p", "tests.bench.inside.phases", *hosts, *arguments),
    ]
    started_s, used_s = time.monotonic(), _used_s()
    done = subprocess.run(
        argv,
        cwd=cwd,
        env=run_environment(home, state, phases) | dict(environment or {}),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=RUN_LIMIT_S,
    )
    total_s, all_processor_s = time.monotonic() - started_s, _used_s() - used_s
    if done.returncode not in ((0, 1) if may_fail else (0,)) or not phases.exists():
        raise RunFailed(f"{' '.join(argv)}\nexit status {done.returncode}\n{done.stdout[-6000:]}")
    clock = json.loads(phases.read_text())
    ledgers = sorted(state.glob("pytest-nixos/ledgers/*.jsonl"))
    lines = [line for ledger in ledgers for line in ledger.read_text().splitlines()]
    return Run(
        at_s=clock["at_s"],
        processor_s=clock["processor_s"],
        machine_processor_s=clock["machine_processor_s"],
        total_s=total_s,
        all_processor_s=all_processor_s,
        tests_s=clock["tests_s"],
        findings=[json.loads(line) for line in lines],
        output=done.stdout,
        workers_mib=tuple(
            int(told.read_text()) / 1024 for told in state.glob(f"{phases.name}.gw*")
        ),
    )


def plain_pytest(home: Path) -> tuple[float, float]:
    """Run pytest on one empty test, as installed but for this plugin.

    :return: seconds to the prompt, and of processor time.
    """
    directory = home / "plain"
    directory.mkdir(exist_ok=True)
    (directory / "pytest.ini").touch()
    (directory / "test_empty.py").write_text("def test_empty(): pass\n")
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:nixos", "-p", "no:cacheprovider"]
    environment = run_environment(home, directory, directory / "none")
    started_s, used_s = time.monotonic(), _used_s()
    subprocess.run(argv, cwd=directory, env=environment, check=True, capture_output=True)
    return time.monotonic() - started_s, _used_s() - used_s


def measure_inside(
    home: Path,
    file: str,
    *arguments: str,
    plan: Plan,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Run a test file of ``inside/`` and return what it wrote; it measures next to the machine's
    fixtures.
    """
    out = home / f"{file}.json"
    out.unlink(missing_ok=True)
    told = {"PYTEST_NIXOS_BENCH_OUT": str(out), "PYTEST_NIXOS_BENCH_QUICK": "1" * plan.quick}
    run_pytest(home, str(INSIDE / file), *arguments, environment=told | dict(environment or {}))
    return json.loads(out.read_text())


def build_vm(home: Path) -> None:
    """Build the host's VM as tests have it, without starting it."""
    options = overrides("--override-input")
    root = ("--gc-root", str(home / "built"))
    argv = [
        sys.executable,
        "-m",
        "pytest_nixos",
        "build",
        "--snapshot",
        f".#{HOST}",
        *root,
        *options,
    ]
    done = subprocess.run(argv, cwd=EXAMPLE, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RunFailed(f"{' '.join(argv)}\n{done.stderr[-6000:]}")


@cache
def accelerator() -> str:
    """Use what the plugin would use: its own probe decides."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest_nixos", "doctor"],
        check=False,
        capture_output=True,
        text=True,
    )
    return "" if "KVM: works" in done.stdout else "-machine accel=tcg"


def machine() -> str:
    """Describe this machine and this moment."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return (
        f"{datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} x {names[0] if names else platform.machine()}, "
        f"{memory_gib:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}, "
        f"{'TCG (no usable KVM)' if accelerator() else 'KVM'}, load {os.getloadavg()[0]:.1f} at the end"
    )


def _used_s() -> float:
    """Return the processor time of what this process has started and what has ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_environment(home: Path, state: Path, phases: Path) -> dict[str, str]:
    """Return the environment of a run: this one, with caches and state of its own.

    :param phases: where it tells its phases.
    """
    # Bytecode is kept, as everywhere but in some build environments.
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {
        **inherited,
        "XDG_CACHE_HOME": str(home),
        "XDG_STATE_HOME": str(state),
        "PYTHONPATH": str(ROOT),
        "PYTEST_NIXOS_BENCH_PHASES": str(phases),
        "CI": "",
    }
