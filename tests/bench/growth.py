"""More hosts in one run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from tests.bench.cold import CONTROL
from tests.bench.figures import Goal, Sample, Section, at_most
from tests.bench.rig import EXAMPLE, Plan, Run, run_pytest, say

_SIZES = (1, 2, 4, 8)
_RUNS = 3
_RECORDED = 100
# What is asked for on two processors.
_GOAL_LIVE_S, _GOAL_RECORDED_S, _GOAL_WORKER_MIB = 4.0, 10.0, 80.0
_FLAKE = """{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }: {
    nixosConfigurations = builtins.listToAttrs (map (n: {
      name = "h${toString n}";
      value = nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [ ./hosts/container-host.nix { networking.hostName = nixpkgs.lib.mkForce "h${toString n}"; } ];
      };
    }) [ 1 2 3 4 5 6 7 8 ]);
  };
}
"""


def measure(home: Path, plan: Plan) -> Section:
    rows = []
    later: dict[int, Sample] = {}
    workers = min(4, os.cpu_count() or 1)
    sizes = _SIZES[:2] if plan.quick else _SIZES
    with tempfile.TemporaryDirectory(prefix="growth-", dir=home) as directory:
        flake = _flake(Path(directory) / "flake")
        for size in sizes:
            say(f"growth: {size} hosts")
            with tempfile.TemporaryDirectory(dir=directory) as caches:
                first = _run(Path(caches), flake, size)
                again = _total([_run(Path(caches), flake, size) for _ in range(plan.count(_RUNS))])
                parallel = _run(Path(caches), flake, size, "-n", str(workers))
            later[size] = again
            rows.append(
                (
                    f"{size} containers",
                    f"{first.total_s:.1f} s",
                    str(again),
                    f"{parallel.total_s:.1f} s",
                    f"{again.median / size:.2f} s",
                )
            )
        recorded, above = _of_recordings(Path(directory), flake, workers, plan)
    count = 2 if plan.quick else _RECORDED
    rows.append(
        (
            f"{count} recordings",
            "",
            str(recorded[0]),
            str(recorded[1]),
            f"{recorded[0].median / count:.2f} s",
        )
    )
    smallest, largest = min(later), max(later)
    times = later[largest].median / later[smallest].median
    return Section(
        name="growth",
        title="More hosts in one run",
        lead=(
            f"Containers of one configuration under different names, one control each ({CONTROL}), command to prompt. The first run evaluates all hosts (at once, "
            "as processors and memory allow) and builds them with one command; a later one does neither. Recordings of that host under different names are judged "
            "for the whole baseline, without machine and Nix. A worker's memory is its peak resident size, above that of a worker which runs one empty test."
        ),
        header=(
            "hosts",
            "first run",
            "later run",
            f"later run, `-n {workers}`",
            "later run, each host",
        ),
        rows=tuple(rows),
        goals=(
            Goal(
                wanted="time grows no faster than the number of hosts",
                got=f"{times:.1f} times for {largest // smallest} times the hosts",
                reached=times <= largest / smallest,
                reason="-",
            ),
            at_most(
                f"{largest} containers, later run",
                later[largest].median,
                _GOAL_LIVE_S,
                unit="s",
                reason="each container starts its own systemd, which keeps a processor busy for most of a second; two at a time on two processors",
            ),
            at_most(
                f"{count} hosts from recordings",
                recorded[0].median,
                _GOAL_RECORDED_S,
                unit="s",
                reason="pytest calls its own hooks and other plugins' three times for each control and host",
            ),
            at_most(
                "a worker's memory above pytest's",
                above,
                _GOAL_WORKER_MIB,
                unit="MiB",
                reason="the modules that judge, and the observations of the hosts",
            ),
        ),
    )


def _of_recordings(
    directory: Path, flake: Path, workers: int, plan: Plan
) -> tuple[tuple[Sample, Sample], float]:
    """Judge many recordings: time alone and with workers, and a worker's memory above pytest's."""
    say("growth: recordings")
    one, many, empty = (directory / name for name in ("recorded", "many", "empty"))
    caches = directory / "caches"
    for place in (caches, empty):
        place.mkdir()
    run_pytest(
        caches, "-k", "test_control", "--nixos-record", str(one),
        flakes=[f"path:{flake}#h1"], may_fail=True,
    )  # fmt: skip
    copy_recording(one, many, 2 if plan.quick else _RECORDED)
    replay = (f"--nixos-replay={many}", "-k", "test_control")
    (empty / "test_empty.py").write_text("def test_empty():\n    pass\n")

    def judged(*arguments: str) -> list[Run]:
        times = range(plan.count(_RUNS))
        return [
            run_pytest(caches, *replay, *arguments, flakes=(), cwd=empty, may_fail=True)
            for _ in times
        ]

    alone, shared = judged(), judged("-n", str(workers))
    plain = run_pytest(caches, "-n", str(workers), "test_empty.py", flakes=(), cwd=empty)
    above = max(max(run.workers_mib) for run in shared) - max(plain.workers_mib)
    return (_total(alone), _total(shared)), above


def copy_recording(source: Path, target: Path, count: int) -> None:
    """Write a recording of `count` hosts, each that of `source` under another name."""
    manifest = json.loads((source / "recording.json").read_text())
    ((key, files),) = manifest["hosts"].items()
    old, hosts = files["attr"], {}
    for number in range(1, count + 1):
        new = f"host{number}"
        folder = f"hosts/{new}"
        (target / folder).mkdir(parents=True, mode=0o700)
        sha256 = {}
        for name in files["sha256"]:
            data = (source / files["folder"] / name).read_text()
            written = data.replace(f'"{old}"', f'"{new}"').replace(f"#{old}", f"#{new}").encode()
            (target / folder / name).write_bytes(written)
            sha256[name] = hashlib.sha256(written).hexdigest()
        hosts[new if key == old else key.replace(f"#{old}", f"#{new}")] = {
            **files, "attr": new, "folder": folder, "sha256": sha256,
        }  # fmt: skip
    (target / "recording.json").write_text(json.dumps({**manifest, "hosts": hosts}))


def _total(runs: list[Run]) -> Sample:
    return Sample(values=tuple(run.total_s for run in runs), unit="s")


def _run(home: Path, flake: Path, size: int, *arguments: str) -> Run:
    flakes = [f"path:{flake}#h{number}" for number in range(1, size + 1)]
    return run_pytest(home, "-k", CONTROL, *arguments, flakes=flakes)


def _flake(directory: Path) -> Path:
    directory.mkdir()
    for name in ("hosts", "modules"):
        shutil.copytree(EXAMPLE / name, directory / name)
    (directory / "flake.nix").write_text(_FLAKE)
    return directory
