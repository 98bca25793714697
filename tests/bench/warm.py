"""A run that starts from a snapshot, against the first run, and where its time goes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from pytest_nixos.machine.keeper.order import log_file
from pytest_nixos.machine.spare.claim import end_spares, spares
from tests.bench.at_hand import run_s, shell_s, switch_s
from tests.bench.cold import CONTROL
from tests.bench.figures import Bar, Sample, Section, at_least, at_most
from tests.bench.rig import Plan, Run, RunFailed, build_vm, plain_pytest, run_pytest, say

SPARE_LIMIT_S = 120.0
LONGEST = 5


def measure(home: Path, plan: Plan) -> Section:
    warm: list[Run] = []
    plain: list[tuple[float, float]] = []
    shells_s: list[float] = []
    commands_s: list[float] = []
    build_vm(home)
    with tempfile.TemporaryDirectory(prefix="warm-", dir=home) as directory:
        say("warm: first run")
        cold = [run_pytest(Path(directory), "-k", CONTROL)]
        for again in range(plan.runs):
            say(
                f"warm: later run {again + 1} of {plan.runs}, in turn with a plain pytest and a shell"
            )
            plain.append(plain_pytest(home))
            warm.append(run_pytest(Path(directory), "-k", CONTROL))
            shells_s.append(shell_s(Path(directory)))
            commands_s.append(run_s(Path(directory)))
        taken, made_s = _with_spares(Path(directory), plan)
        say("warm: the whole baseline")
        whole = [run_pytest(Path(directory), may_fail=True) for _ in range(1 if plan.quick else 3)]
        switches = _sample(switch_s(Path(directory)) for _ in range(plan.runs))
    first, later, ready = (_at(runs, "first finding") for runs in (cold, warm, taken))
    shares = [
        ("Python, pytest and its plugins, to the session's start", _between(warm, "", "session")),
        ("catalogue and collection; beside it Nix is asked and the clone starts", _between(warm, "session", "collected")),
        ("what was left of the restore: to the channel's answer and the clock set", _between(warm, "collected", "machine ready")),
        ("channel: observing and judging the first control", _between(warm, "machine ready", "first finding")),
    ]  # fmt: skip
    empty = _sample(seconds for seconds, _ in plain)
    rows = [
        ("first run, command to first finding", str(first), ""),
        ("later run, command to first finding", str(later), "100 %"),
        *((f"- {name}", str(s), f"{s.median / later.median:.0%}") for name, s in shares),
        ("later run, command to prompt", str(_sample(r.total_s for r in warm)), ""),
        ("- processor time of pytest's own process to the first finding", str(_sample(r.processor_s["first finding"] for r in warm)), ""),
        ("- processor time of all, QEMU too", str(_sample(r.all_processor_s for r in warm)), ""),
        ("shell, command to the answer of the first command typed", str(_sample(shells_s)), ""),
        ("run, command to its answer", str(_sample(commands_s)), ""),
        ("later run that goes on with a spare, command to first finding", str(ready), f"{ready.median / later.median:.0%}"),
        ("- command to prompt", str(_sample(r.total_s for r in taken)), ""),
        ("- processor time of pytest's own process to the first finding", str(_sample(r.processor_s["first finding"] for r in taken)), ""),
        ("- from a run's end until the next spare waits", str(_sample(made_s)), ""),
        ("plain pytest of one empty test, command to prompt", str(empty), ""),
        ("- its processor time", str(_sample(used for _, used in plain)), ""),
        ("later run of the whole baseline, command to prompt", str(_sample(r.total_s for r in whole)), ""),
        *_longest(whole),
        ("the host's own switch to the system that it runs, by the guest's clock", str(switches), ""),
    ]  # fmt: skip
    return Section(
        name="warm",
        title="A later run, from the snapshot",
        lead=(
            f"One control ({CONTROL}); the first run has empty caches and saves the snapshot, later ones start from it. What is built is built. "
            "A spare (--nixos-spare) is a clone that was woken and stopped when the run before had ended."
        ),
        header=("phase", "median", "share"),
        rows=tuple(rows),
        goals=(
            at_most(
                "later run with a spare to its first finding",
                ready.median,
                1.0,
                unit="s",
                reason="Python, pytest and this plugin are imported, and Nix is asked",
            ),
            at_most(
                "later run with a spare to its first finding, against a plain pytest of one empty test",
                ready.median / empty.median,
                2.5,
                unit="times",
                reason="as above",
            ),
            at_most(
                "later run without one to its first finding",
                later.median,
                1.0,
                unit="s",
                reason="see the shares above; QEMU's start and the guest's first commands are emulated",
            ),
            at_most(
                "shell in a clone, command to the first answer",
                _sample(shells_s).median,
                1.0,
                unit="s",
                reason="the clone is made as for a run; then the guest starts programs for the terminal and the shell",
            ),
            at_most(
                "the whole baseline to the prompt",
                _sample(r.total_s for r in whole).median,
                5.0,
                unit="s",
                reason=f"the longest of it: see above; of that two switches of the host's own are {2 * switches.median:.3g} s",
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
            Bar(label="later run, with a spare", value=ready.median, ours=True),
        ),
        bars_title="Command to first finding",
        bars_unit="s",
    )


def _with_spares(home: Path, plan: Plan) -> tuple[list[Run], list[float]]:
    """Measure runs that go on with the spare of the one before; return also how long after that
    one's end each waited.
    """
    taken, made_s = [], []
    try:
        run_pytest(home, "-k", CONTROL, "--nixos-spare=30")
        for number in range(plan.runs):
            say(f"warm: run {number + 1} of {plan.runs} with a spare")
            started_s = time.monotonic()
            name = _await_spare()
            made_s.append(time.monotonic() - started_s)
            run = run_pytest(home, "-k", CONTROL, "--nixos-spare=30")
            if name in [door.card.name for door in spares()]:
                raise RunFailed(f"the spare was not taken:\n{run.output}")
            taken.append(run)
    finally:
        end_spares()
    return taken, made_s


def _longest(whole: list[Run]) -> list[tuple[str, str, str]]:
    """Tell the tests that take longest in the whole baseline; the first one looks for many."""
    took = {
        name: _sample(run.tests_s.get(name, 0.0) for run in whole)
        for name in dict.fromkeys(name for run in whole for name in run.tests_s)
    }
    longest = sorted(took.items(), key=lambda test: -test[1].median)[:LONGEST]
    return [(f"- of it {name.partition('[')[0]}", str(took_s), "") for name, took_s in longest]


def _await_spare() -> str:
    end_s = time.monotonic() + SPARE_LIMIT_S
    while not (waiting := [door.card.name for door in spares() if door.card.waits]):
        if time.monotonic() > end_s:
            raise RunFailed(f"no spare after {SPARE_LIMIT_S} s: {log_file().name} tells")
        time.sleep(0.05)
    return waiting[0]


def _at(runs: list[Run], event: str) -> Sample:
    return _between(runs, "", event)


def _between(runs: list[Run], start: str, end: str) -> Sample:
    values = tuple(run.at_s[end] - (run.at_s[start] if start else 0.0) for run in runs)
    return Sample(values=values, unit="s")


def _sample(values: Iterable[float]) -> Sample:
    return Sample(values=tuple(values), unit="s")
