"""What the evaluation of a host takes beside plain ``nix eval`` of its toplevel, on the nixpkgs tree that
``PYTEST_NIXOS_NIXPKGS`` names.
"""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.machine.channel.protocol import guest_script
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import NixSettings, eval_argv
from pytest_nixos.nix.command.log import NixLog
from pytest_nixos.nix.command.refs import FlakeRef, nix_quote
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.flake import Flake
from tests.bench.figures import Bar, Sample, Section, at_most
from tests.bench.rig import Plan, RunFailed, say
from tests.machine.test_stock_hosts import STOCK
from tests.support.config_only import controls_of, evaluated
from tests.support.nixpkgs_tree import NIXPKGS, PROGRAM, overlays

_HOSTS = ("server", "desktop", "container")
_GOAL = 1.15
_LIMIT_S = 1800.0
#: Processor seconds and MiB at the peak.
Took = tuple[float, float]


def measure(home: Path, plan: Plan) -> Section | tuple[Section, ...]:
    if not NIXPKGS:
        say("evaluation: skipped, PYTEST_NIXOS_NIXPKGS names no nixpkgs tree")
        return ()
    nix = Nix(runner=SubprocessRunner(), settings=NixSettings(program=PROGRAM))
    flake = _stock(home / "flake")
    took: dict[str, tuple[list[Took], list[Took]]] = {host: ([], []) for host in _HOSTS}
    for host, (plain, ours) in took.items():
        for number in range(plan.runs):
            say(f"evaluation: {host}, {number + 1} of {plan.runs}, each")
            plain.append(_plainly(nix, flake, host))
            ours.append(_by_plugin(nix, flake, host))
    return section(took, version=nix.version())


def section(took: dict[str, tuple[list[Took], list[Took]]], *, version: str) -> Section:
    """Lay out what was measured: by host, plain and by the plugin in turn."""
    rows, goals, bars = [], [], []
    for host, (plain, ours) in took.items():
        times = [Sample(values=tuple(one[0] for one in of), unit="s") for of in (plain, ours)]
        sizes = [Sample(values=tuple(one[1] for one in of), unit="MiB") for of in (plain, ours)]
        ratios = [of[1].median / of[0].median for of in (times, sizes)]
        rows.append(
            (host, *map(str, (*times, *sizes)), *(f"{ratio:.2f}" for ratio in ratios)),
        )
        goals += [
            at_most(
                f"{host}: {what} beside plain",
                ratio,
                _GOAL,
                unit="times",
                reason="the host and the machine made of it are two configurations; see the page on evaluation",
            )
            for what, ratio in zip(("time", "memory"), ratios, strict=True)
        ]
        bars += [
            Bar(label=f"{host}: nix eval", value=times[0].median, ours=False),
            Bar(label=f"{host}: facts, options, machine", value=times[1].median, ours=True),
        ]
    return Section(
        name="evaluation",
        title="An evaluation, beside plain nix eval",
        lead=(
            f"Stock hosts on a real nixpkgs tree, {version}: `nix eval` of the toplevel's derivation, and in turn all that a run with the default profile "
            "asks, which is the facts, the controls' options and the machine. Seconds are the processor's (user), memory is the peak resident size."
        ),
        header=("host", "plain", "plugin", "plain", "plugin", "times", "times the memory"),
        rows=tuple(rows),
        goals=tuple(goals),
        bars=tuple(bars),
        bars_title="An evaluation",
        bars_unit="s",
    )


def _stock(folder: Path) -> FlakeRef:
    """Write the flake of stock hosts, locked: without a lock each command would copy the tree."""
    folder.mkdir()
    text = STOCK.replace("@NIXPKGS@", str(Path(NIXPKGS).resolve()))
    (folder / "flake.nix").write_text(text.replace("@OVERLAYS@", overlays(NIXPKGS)))
    argv = [PROGRAM, "--extra-experimental-features", "nix-command flakes", "flake", "lock"]
    done = subprocess.run(
        [*argv, f"path:{folder}"], capture_output=True, text=True, check=False, timeout=_LIMIT_S
    )
    if done.returncode:
        raise RunFailed(done.stderr)
    return FlakeRef(f"path:{folder}")


def _plainly(nix: Nix, flake: FlakeRef, host: str) -> Took:
    expression = f"hosts: hosts.{nix_quote(host)}.config.system.build.toplevel.drvPath"
    peak: list[int] = []

    def work() -> None:
        argv = eval_argv(nix.settings, flake, "nixosConfigurations", expression)
        done = nix.run(argv, NixLog(), _LIMIT_S)
        if done.exit_status:
            raise RunFailed(done.stderr.decode(errors="replace"))
        peak.append((done.peak_bytes or 0) >> 20)

    return _seconds(work), peak[0]


def _by_plugin(nix: Nix, ref: FlakeRef, host: str) -> Took:
    made = Instrumentation(channel_script=guest_script(), snapshot=True)
    peak: list[int] = []
    controls = controls_of("baseline")
    flake = Flake(ref, nix, made)
    _ = flake.metadata
    return _seconds(lambda: evaluated(flake, host, controls, measured=peak.append)), max(peak)


def _seconds(work: Callable[[], object]) -> float:
    """Return the processor seconds of what `work` starts, without what the kernel did for it:
    whether a derivation is written for the first time is not in it.
    """
    began_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    work()
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began_s
