"""A first run beside the bare run script: what the plugin adds to a boot."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench.figures import Bar, Sample, Section, at_most
from tests.bench.rig import Plan, Run, bare_run_script, run_pytest, say, seconds_to_login

CONTROL = "BOOT-003"


def measure(home: Path, plan: Plan) -> Section:
    script = bare_run_script(home)
    _run(home)  # builds what is not built yet
    bare: list[float] = []
    ours: list[Run] = []
    for number in range(plan.runs):
        say(f"cold: {number + 1} of {plan.runs}")
        bare.append(seconds_to_login(script))
        ours.append(_run(home))
    login = Sample(values=tuple(bare), unit="s")
    boot = _phase(ours, "machine wanted", "machine ready")
    rows = [
        ("bare run script: start to login prompt", str(login)),
        ("plugin: command to machine wanted (pytest, Nix: evaluated, built)", str(_phase(ours, "", "machine wanted"))),
        ("plugin: machine wanted to no job queued any more", str(boot)),
        ("plugin: machine ready to first finding", str(_phase(ours, "machine ready", "first finding"))),
        ("plugin: command to first finding", str(_phase(ours, "", "first finding"))),
        ("plugin: command to prompt", str(Sample(values=tuple(r.total_s for r in ours), unit="s"))),
    ]  # fmt: skip
    return Section(
        name="cold",
        title="A first run, beside the bare run script",
        lead=(
            "Nothing is cached but the build. The bare run script is what `nixos-rebuild build-vm` gives, with the accelerator that the plugin uses, "
            f"timed to its login prompt. The plugin judges one control ({CONTROL}) of the same host with `--nixos-snapshot off`; its boot ends "
            "later than the prompt: when no unit is queued any more."
        ),
        header=("phase", "median"),
        rows=tuple(rows),
        goals=(
            at_most(
                "boot above the bare run script",
                (boot.median / login.median - 1) * 100,
                5,
                unit="%",
                reason="the plugin waits until no unit is queued, which is after the prompt, and a busy machine spreads the runs",
            ),
        ),
        bars=(
            Bar(label="bare run script, login prompt", value=login.median, ours=False),
            Bar(label="first run, machine ready", value=boot.median, ours=True),
        ),
        bars_title="A first boot",
        bars_unit="s",
    )


def _run(home: Path) -> Run:
    with tempfile.TemporaryDirectory(prefix="cold-", dir=home) as directory:
        return run_pytest(Path(directory), "-k", CONTROL, "--nixos-snapshot", "off")


def _phase(runs: list[Run], start: str, end: str) -> Sample:
    values = tuple(run.at_s[end] - (run.at_s[start] if start else 0.0) for run in runs)
    return Sample(values=values, unit="s")
