"""More hosts in one run."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from tests.bench.cold import CONTROL
from tests.bench.figures import Goal, Section
from tests.bench.rig import EXAMPLE, Plan, Run, run_pytest, say

_SIZES = (1, 2, 4, 8)
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
    later: dict[int, float] = {}
    workers = min(4, os.cpu_count() or 1)
    sizes = _SIZES[:2] if plan.quick else _SIZES
    with tempfile.TemporaryDirectory(prefix="growth-", dir=home) as directory:
        flake = _flake(Path(directory) / "flake")
        for size in sizes:
            say(f"growth: {size} hosts")
            with tempfile.TemporaryDirectory(dir=directory) as caches:
                first = _run(Path(caches), flake, size)
                again = _run(Path(caches), flake, size)
                parallel = _run(Path(caches), flake, size, "-n", str(workers))
            later[size] = again.total_s
            rows.append(
                (
                    str(size),
                    *(f"{run.total_s:.1f} s" for run in (first, again, parallel)),
                    f"{again.total_s / size:.2f} s",
                )
            )
    smallest, largest = min(later), max(later)
    return Section(
        name="growth",
        title="More hosts in one run",
        lead=(
            f"Containers of one configuration under different names, one control each ({CONTROL}), command to prompt. The first run evaluates all hosts (at once, "
            "as processors and memory allow) and builds them with one command; a later one does neither."
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
                got=f"{later[largest] / later[smallest]:.1f} times for {largest // smallest} times the hosts",
                reached=later[largest] / later[smallest] <= largest / smallest,
                reason="-",
            ),
        ),
    )


def _run(home: Path, flake: Path, size: int, *arguments: str) -> Run:
    flakes = [f"path:{flake}#h{number}" for number in range(1, size + 1)]
    return run_pytest(home, "-k", CONTROL, *arguments, flakes=flakes)


def _flake(directory: Path) -> Path:
    directory.mkdir()
    for name in ("hosts", "modules"):
        shutil.copytree(EXAMPLE / name, directory / name)
    (directory / "flake.nix").write_text(_FLAKE)
    return directory
