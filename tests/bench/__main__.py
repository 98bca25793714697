"""``./dev bench``: a cold run beside the bare run script, one command's round trip, lines of code.

Medians of several runs, both sides in turn within one session, so that the ratio means something on any machine.
Writes docs/reference/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pexpect

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "example-flake"
HOST = "llm-host"
BOOT_LIMIT_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdRun:
    """Seconds of one run of pytest on a host that nothing is cached of but the build."""

    first_finding_s: float
    evaluate_s: float
    build_s: float
    boot_s: float
    first_command_s: float
    total_s: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev bench")
    parser.add_argument("--runs", type=int, default=3, metavar="N")
    runs = parser.parse_args().runs
    script = build_run_script()
    bare: list[float] = []
    ours: list[ColdRun] = []
    for number in range(runs):
        say(f"run {number + 1} of {runs}")
        bare.append(seconds_to_login(script))
        ours.append(cold_run())
    report = "\n".join(lines_of_report(bare, ours, round_trips()))
    (ROOT / "docs/reference/benchmarks.md").write_text(report)
    sys.stdout.write(report)


def overrides() -> list[str]:
    replaced: dict[str, str] = json.loads(os.environ["PYTEST_NIXOS_TEST_OVERRIDES"])
    return [
        word for name, ref in replaced.items() for word in ("--nixos-override-input", name, ref)
    ]


def build_run_script() -> Path:
    say("building the bare VM")
    arguments = [word.replace("--nixos-", "--") for word in overrides()]
    out = Path(tempfile.mkdtemp(prefix="bench-")) / "vm"
    attribute = f"{EXAMPLE}#nixosConfigurations.{HOST}.config.system.build.vm"
    subprocess.run(
        [
            "nix",
            "--extra-experimental-features",
            "nix-command flakes",
            "build",
            "--no-write-lock-file",
            *arguments,
            attribute,
            "--out-link",
            str(out),
        ],
        check=True,
    )
    (script,) = (out / "bin").glob("run-*-vm")
    return script


def seconds_to_login(script: Path) -> float:
    """Start the host's own run script as a user would, and wait for its login prompt."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        environment = {
            **os.environ,
            "NIX_DISK_IMAGE": f"{directory}/disk.qcow2",
            "TMPDIR": directory,
            "USE_TMPDIR": "1",
            "QEMU_OPTS": f"-nographic -no-reboot {accelerator()}",
            "QEMU_KERNEL_PARAMS": "console=ttyS0",
        }
        started_s = time.monotonic()
        child = pexpect.spawn(str(script), env=environment, timeout=BOOT_LIMIT_S, cwd=directory)
        try:
            child.expect(r"login:")
            return time.monotonic() - started_s
        finally:
            child.close(force=True)


def accelerator() -> str:
    """Use what the plugin would use: its own probe decides."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest_nixos", "doctor"], check=True, capture_output=True, text=True
    )
    return "" if "KVM: works" in done.stdout else "-machine accel=tcg"


def cold_run() -> ColdRun:
    """Run one control with an empty evaluation cache; the ledger's file time tells the first finding."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        environment = {**os.environ, "XDG_CACHE_HOME": directory, "XDG_STATE_HOME": directory}
        report = Path(directory) / "report.json"
        arguments = ["--nixos-flake", f".#{HOST}", *overrides(), "--nixos-report", f"json:{report}"]
        started_s, started_at = time.monotonic(), time.time()
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                *arguments,
                "-k",
                "BOOT-003",
            ],
            cwd=EXAMPLE,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        total_s = time.monotonic() - started_s
        (ledger,) = Path(directory).glob("pytest-nixos/ledgers/*.jsonl")
        phases = json.loads(report.read_text())["run"]["hosts"][HOST]["phases_s"]
        finding = json.loads(ledger.read_text().splitlines()[0])
        return ColdRun(
            first_finding_s=ledger.stat().st_mtime - started_at,
            evaluate_s=phases["evaluate"],
            build_s=phases["build"],
            boot_s=phases["boot"],
            first_command_s=finding["duration_s"],
            total_s=total_s,
        )


def round_trips() -> dict[str, list[float]]:
    """Measure commands on one booted machine; milliseconds by command."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        out = Path(directory) / "round-trips.json"
        test = Path(directory) / "test_round_trips.py"
        test.write_text(_ROUND_TRIPS.format(out=str(out)))
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "--nixos-flake",
                f"{EXAMPLE}#{HOST}",
                *overrides(),
                str(test),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        measured: dict[str, list[float]] = json.loads(out.read_text())
        return measured


_ROUND_TRIPS = """
import json, time
from pathlib import Path

COMMANDS = {{"true": 200, "cat /etc/hostname": 100, "systemctl is-system-running": 20}}

def test_round_trips(nixos_machine):
    measured = {{}}
    for command, count in COMMANDS.items():
        nixos_machine.run(command)
        measured[command] = [nixos_machine.run(command).duration_s * 1000 for _ in range(count)]
    started = time.monotonic()
    big = nixos_machine.run("head -c 20000000 /dev/zero")
    measured["20 MB of output"] = [(time.monotonic() - started) * 1000]
    assert len(big.stdout) == 20_000_000
    Path({out!r}).write_text(json.dumps(measured))
"""


def lines_of_report(
    bare: Sequence[float], ours: Sequence[ColdRun], trips: dict[str, list[float]]
) -> Iterator[str]:
    login_s = statistics.median(bare)
    boot_s = statistics.median(run.boot_s for run in ours)
    yield "# Benchmarks"
    yield ""
    yield f"Written by `./dev bench` on {datetime.now(UTC):%Y-%m-%d}: {platform.platform()}, {os.cpu_count()} processors, "
    yield f"{accelerator() or 'KVM'}; medians of {len(ours)} runs, both sides in turn. Host: `{HOST}` of the example flake on the offline stand-in."
    yield ""
    yield "## Cold run, command to first finding"
    yield ""
    yield "| phase | seconds |"
    yield "|---|---|"
    for name in (
        "evaluate_s",
        "build_s",
        "boot_s",
        "first_command_s",
        "first_finding_s",
        "total_s",
    ):
        median = statistics.median(getattr(run, name) for run in ours)
        yield f"| {name.removesuffix('_s').replace('_', ' ')} | {median:.2f} |"
    yield ""
    yield f"The bare run script reaches its login prompt after {login_s:.2f} s; the plugin's boot, which ends when no job is queued any "
    yield f"more, takes {boot_s:.2f} s: {boot_s / login_s - 1:+.0%}."
    yield ""
    yield "## One command"
    yield ""
    yield "| command | median ms | worst ms |"
    yield "|---|---|---|"
    for command, values in trips.items():
        yield f"| `{command}` | {statistics.median(values):.2f} | {max(values):.2f} |"
    yield ""
    yield "## Lines of code"
    yield ""
    yield "| package | lines |"
    yield "|---|---|"
    for name, count in lines_of_code():
        yield f"| `{name}` | {count} |"
    yield ""


def lines_of_code() -> Iterator[tuple[str, int]]:
    packages = [
        "pytest_nixos",
        *sorted(
            f"pytest_nixos/{p.name}"
            for p in (ROOT / "pytest_nixos").iterdir()
            if p.is_dir() and p.name[0] != "_"
        ),
    ]
    for name in [*packages, "checks", "tests", "example-flake"]:
        pattern = "*" if name == "pytest_nixos" else "**/*"
        files = [f for f in (ROOT / name).glob(pattern) if f.suffix in (".py", ".nix", ".bash")]
        count = sum(
            len([line for line in f.read_text().splitlines() if line.strip()]) for f in files
        )
        if count:
            yield name, count


def say(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")


if __name__ == "__main__":
    main()
