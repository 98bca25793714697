"""The whole catalogue on a machine that starts from its snapshot."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from tests.bench.figures import Goal, Sample, Section
from tests.bench.rig import PROFILES, Plan, Run, run_pytest, say

# What is asked for on an emulated guest and two processors.
GOAL_S = 3.0
_RUNS = 5
_SLOWEST = 5


def measure(home: Path, plan: Plan) -> Section:
    data: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="catalogue-", dir=home) as directory:
        for number in range(1 + (1 if plan.quick else max(_RUNS, plan.runs))):
            say(f"catalogue: data controls, run {number}")
            run = run_pytest(Path(directory), "-k", "test_control", *PROFILES, may_fail=True)
            if number:  # the first one saves the snapshot
                data.append(run)
        say("catalogue: everything but destructive checks")
        whole = run_pytest(Path(directory), "-m", "not nixos_destructive", *PROFILES, may_fail=True)
    controls = len(data[0].findings)
    total = Sample(values=tuple(run.total_s for run in data), unit="s")
    judging = Sample(values=tuple(_judging_s(run) for run in data), unit="s")
    each_ms = [finding["duration_s"] * 1000 for finding in data[0].findings]
    slowest = sorted(whole.findings[1:], key=lambda finding: -finding["duration_s"])[:_SLOWEST]
    rows = [
        (f"{controls} data controls, command to prompt", str(total), f"{total.median / controls * 1000:.1f} ms"),
        ("- of it from the machine ready to the last finding", str(judging), f"{judging.median / controls * 1000:.1f} ms"),
        ("- median of one control", f"{statistics.median(each_ms):.2f} ms", ""),
        ("- the first, which starts the machine and observes for all", f"{max(each_ms):.0f} ms", ""),
        (f"{len(whole.findings)} controls, behaviour tried too, command to prompt", f"{whole.total_s:.1f} s",
         f"{whole.total_s / len(whole.findings) * 1000:.0f} ms"),
        *((f"- slowest: {finding['control']}", f"{finding['duration_s']:.1f} s", "") for finding in slowest),
    ]  # fmt: skip
    return Section(
        name="catalogue",
        title="The whole catalogue",
        lead=(
            "The controls that nine profiles together select, on a machine from its snapshot, passed, failed or not applicable. Data controls share one round trip; "
            "behavioural checks try things (they wait for services, probe ports, run programs). Checks that change the machine are left out."
        ),
        header=("what", "in all", "each"),
        rows=tuple(rows),
        goals=(
            Goal(
                wanted=f"all data controls, machine ready to the last finding: at most {GOAL_S:g} s",
                got=str(judging),
                reached=judging.median <= GOAL_S,
                reason="programs that start in an emulated guest; systemd's and Nix's answers take longest",
            ),
        ),
    )


def _judging_s(run: Run) -> float:
    return run.at_s["last test"] - run.at_s["machine ready"]
