"""A cluster of three VMs, booted and from snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.figures import Bar, Sample, Section, at_most
from tests.bench.rig import Plan, measure_inside, say

# What is asked for on an emulated guest and two processors.
GOAL_S = 3.0


def measure(home: Path, plan: Plan) -> Section:
    say("cluster: three VMs, each booted and saved")
    cold = [measure_inside(home, "measure_cluster.py", plan=plan)]
    warm = []
    for number in range(1 if plan.quick else max(3, plan.runs)):
        say(f"cluster: from snapshots, run {number + 1}")
        warm.append(measure_inside(home, "measure_cluster.py", plan=plan))
    took = _sample(warm, "took_s", "s")
    rows = [
        (name, str(_sample(cold, key, unit)), str(_sample(warm, key, unit)))
        for name, key, unit in (
            ("wanted to all three answering, each by name", "took_s", "s"),
            ("- processor time of pytest, with Nix and what makes disks", "own_processor_s", "s"),
            ("- processor time of the three QEMUs", "machines_processor_s", "s"),
            ("memory of the three QEMUs together (PSS)", "memory_mib", "MiB"),
        )
    ]
    return Section(
        name="cluster",
        title="A cluster of three VMs",
        lead=(
            "`nixos_cluster` with the three NATS hosts of the example flake as VMs on one network: a first run, which evaluates them, makes the images of their stores, boots and "
            "saves each and goes on with clones, and later runs from the snapshots."
        ),
        header=("what", "first run", "later run"),
        rows=tuple(rows),
        goals=(
            at_most(
                "three VMs from their snapshots",
                took.median,
                GOAL_S,
                unit="s",
                reason="three QEMUs start and three guests wake on two processors: see the processor time",
            ),
        ),
        bars=(
            Bar(label="first run", value=_sample(cold, "took_s", "s").median, ours=True),
            Bar(label="later run, from snapshots", value=took.median, ours=True),
        ),
        bars_title="A cluster of three VMs",
        bars_unit="s",
    )


def _sample(runs: Sequence[Any], key: str, unit: str) -> Sample:
    return Sample(values=tuple(run[key] for run in runs), unit=unit)
