"""A run that starts from a snapshot, against the first run, and where its time goes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench.cold import CONTROL
from tests.bench.figures import Bar, Sample, Section, at_least, at_most
from tests.bench.rig import Plan, Run, run_pytest, say


def measure(home: Path, plan: Plan) -> Section:
    cold: list[Run] = []
    warm: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="built-", dir=home) as directory:
        run_pytest(Path(directory), "-k", CONTROL)  # builds what is not built yet
    for number in range(1 if plan.quick else 2):
        say(f"warm: first run {number + 1}")
        with tempfile.TemporaryDirectory(prefix="warm-", dir=home) as directory:
            cold.append(run_pytest(Path(directory), "-k", CONTROL))
            for again in range(plan.runs):
                say(f"warm: later run {again + 1} of {plan.runs}")
                warm.append(run_pytest(Path(directory), "-k", CONTROL))
    first, later = _at(cold, "first finding"), _at(warm, "first finding")
    shares = [
        ("Python, pytest and its plugins, to the session's start", _between(warm, "", "session")),
        ("Nix: `flake metadata`, `--version`, `nix-store --realise` of what is built", Sample(values=tuple(r.nix_s for r in warm), unit="s")),
        ("catalogue, session, collection and the rest to a machine wanted", Sample(values=tuple(_python_s(r) for r in warm), unit="s")),
        ("restore: machine wanted to the channel's answer and the clock set", _between(warm, "machine wanted", "machine ready")),
        ("channel: observing and judging the first control", _between(warm, "machine ready", "first finding")),
    ]  # fmt: skip
    rows = [
        ("first run, command to first finding", str(first), ""),
        ("later run, command to first finding", str(later), "100 %"),
        *((f"- {name}", str(s), f"{s.median / later.median:.0%}") for name, s in shares),
        ("later run, command to prompt", str(Sample(values=tuple(r.total_s for r in warm), unit="s")), ""),
    ]  # fmt: skip
    return Section(
        name="warm",
        title="A later run, from the snapshot",
        lead=(
            f"One control ({CONTROL}); the first run has empty caches and saves the snapshot, later ones start from it. What is built is built."
        ),
        header=("phase", "median", "share"),
        rows=tuple(rows),
        goals=(
            at_most(
                "later run to its first finding",
                later.median,
                1.5,
                unit="s",
                reason="see the shares above for what is longest; Python and pytest alone are a fifth of a second on an idle machine",
            ),
            at_least(
                "later run against first run",
                first.median / later.median,
                15,
                reason="see the shares above",
            ),
        ),
        bars=(
            Bar(label="first run", value=first.median, ours=True),
            Bar(label="later run, from the snapshot", value=later.median, ours=True),
        ),
        bars_title="Command to first finding",
        bars_unit="s",
    )


def _python_s(run: Run) -> float:
    return run.at_s["machine wanted"] - run.at_s["session"] - run.nix_s


def _at(runs: list[Run], event: str) -> Sample:
    return _between(runs, "", event)


def _between(runs: list[Run], start: str, end: str) -> Sample:
    values = tuple(run.at_s[end] - (run.at_s[start] if start else 0.0) for run in runs)
    return Sample(values=values, unit="s")
