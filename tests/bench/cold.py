"""A first run beside the bare run script: what the plugin adds to a boot."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.bench.bare import INPUT, BareBoot, boot, make_telling_flake, run_script
from tests.bench.figures import Bar, Sample, Section, at_most
from tests.bench.rig import HOST, Plan, Run, run_pytest, say

CONTROL = "BOOT-003"


def measure(home: Path, plan: Plan) -> Section:
    flake = make_telling_flake(home)
    script = run_script(flake)
    _run(home, flake)  # builds what is not built yet
    bare: list[BareBoot] = []
    ours: list[Run] = []
    for number in range(plan.runs):
        say(f"cold: {number + 1} of {plan.runs}")
        bare.append(boot(script))
        ours.append(_run(home, flake))
    alone = _sample(b.finished_s for b in bare)
    ready = _phase(ours, "machine wanted", "machine ready")
    rows = [
        ("bare run script: start to login prompt", str(_sample(b.login_s for b in bare))),
        ("bare run script: start to no unit queued any more", str(alone)),
        ("- processor time of QEMU", str(_sample(b.processor_s for b in bare))),
        ("plugin: command to machine wanted (pytest, Nix: evaluated, built)", str(_phase(ours, "", "machine wanted"))),
        ("plugin: machine wanted to no unit queued any more", str(ready)),
        ("- processor time of QEMU", str(_sample(r.machine_processor_s for r in ours))),
        ("plugin: machine ready to first finding", str(_phase(ours, "machine ready", "first finding"))),
        ("plugin: command to first finding", str(_phase(ours, "", "first finding"))),
        ("plugin: command to prompt", str(_sample(r.total_s for r in ours))),
    ]  # fmt: skip
    return Section(
        name="cold",
        title="A first run, beside the bare run script",
        lead=(
            "Nothing is cached but the build. The bare run script is what `nixos-rebuild build-vm` gives, with the accelerator that the plugin uses, "
            "timed until a unit of its host says on the console that no unit is queued any more. The plugin judges one control "
            f"({CONTROL}) of the same host with `--nixos-snapshot off`, and is timed to the same moment."
        ),
        header=("phase", "median"),
        rows=tuple(rows),
        goals=(
            at_most(
                "boot above the bare run script",
                (ready.median / alone.median - 1) * 100,
                2,
                unit="%",
                reason="the guest serves the root command channel and is asked how it stands, and a busy machine spreads the runs",
            ),
        ),
        bars=(
            Bar(label="bare run script, no unit queued", value=alone.median, ours=False),
            Bar(label="first run, machine ready", value=ready.median, ours=True),
        ),
        bars_title="A first boot",
        bars_unit="s",
    )


def _run(home: Path, flake: Path) -> Run:
    with tempfile.TemporaryDirectory(prefix="cold-", dir=home) as directory:
        return run_pytest(
            Path(directory), "-k", CONTROL, "--nixos-snapshot", "off",
            flakes=(f".#{HOST}",), cwd=flake, example=INPUT,
            environment={"PYTEST_NIXOS_BENCH_MACHINE": "1"},
        )  # fmt: skip


def _phase(runs: list[Run], start: str, end: str) -> Sample:
    return _sample(run.at_s[end] - (run.at_s[start] if start else 0.0) for run in runs)


def _sample(values: Iterable[float]) -> Sample:
    return Sample(values=tuple(values), unit="s")
