"""The NixOS test driver itself, nixpkgs' own Python, and ours on the same node of a NixOS test.

Its text comes from a nixpkgs tree when it is measured: the one that ``PYTEST_NIXOS_NIXPKGS`` names, else
what Nix fetches. Nothing of it is kept.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.figures import Bar, Sample, Section
from tests.bench.rig import (
    EXAMPLE,
    HOST,
    INSIDE,
    Plan,
    RunFailed,
    accelerator,
    overrides,
    run_pytest,
    say,
)

RELEASE = "github:NixOS/nixpkgs/nixos-25.05"
COMMANDS = {"true": 40, "cat /etc/hostname": 40, "readlink /run/current-system": 40}
BOOT_LIMIT_S = "1800"
NIX = ("nix", "--extra-experimental-features", "nix-command flakes")
TEST = "checks.x86_64-linux.driver"
FLAKE = """{
  inputs.nixpkgs.url = "nixpkgs";
  inputs.example = { url = "path:@EXAMPLE@"; flake = false; };
  outputs = { self, nixpkgs, example }: {
    @TEST@ = nixpkgs.legacyPackages.x86_64-linux.testers.runNixOSTest {
      name = "bench";
      nodes.@HOST@ = { imports = [ "${example}/hosts/@HOST@.nix" ]; virtualisation.vlans = [ ]; };
      testScript = "start_all()";
    };
  };
}
"""
# What the driver runs in place of the node's own script; `machines` and `start_all` are its words.
SCRIPT = """
import json, os, time
machine = machines[0]
began = time.monotonic()
machine.start()
machine.connect()
shell_s = time.monotonic() - began
machine.wait_for_unit("multi-user.target")
up_s = time.monotonic() - began
commands = {}
for command, count in json.loads(os.environ["PYTEST_NIXOS_BENCH_COMMANDS"]).items():
    taken = commands[command] = []
    for _ in range(count):
        before = time.monotonic()
        status, _said = machine.execute(command)
        taken.append((time.monotonic() - before) * 1000)
        assert status == 0, command
with open(os.environ["PYTEST_NIXOS_BENCH_OUT"], "w") as out:
    json.dump({"shell_s": shell_s, "up_s": up_s, "commands": commands}, out)
"""
# What the driver imports for its own terminal and reports, and does not need here.
STUBS = {
    "colorama.py": "class _Any:\n    def __getattr__(self, name): return ''\nFore = Style = _Any()\n",
    "junit_xml.py": "TestCase = TestSuite = None\n",
    "ptpython/__init__.py": "",
    "ptpython/repl.py": "embed = None\n",
}
_ANSWERS = re.compile(r": (\d+(?:\.\d+)?) s: the root command channel answers")
_SETTLED = re.compile(r": (\d+(?:\.\d+)?) s: the system is (?:running|degraded)")


def measure(home: Path, plan: Plan) -> Section:
    tree = _tree()
    with tempfile.TemporaryDirectory(prefix="bn-") as directory:
        # Apart from the machines' sockets, which Nix would take for its files.
        flake = Path(directory) / "flake"
        flake.mkdir()
        text = FLAKE.replace("@EXAMPLE@", str(EXAMPLE)).replace("@HOST@", HOST)
        (flake / "flake.nix").write_text(text.replace("@TEST@", TEST))
        start = _built(flake) / "start-scripts"
        theirs, ours = [], []
        for number in range(plan.runs):
            say(f"driver: boot {number + 1} of {plan.runs}, each")
            theirs.append(
                _theirs(tree, start.read_text().strip(), Path(directory) / f"their-{number}", plan)
            )
            ours.append(_ours(home, flake, plan))
    return section(theirs, ours)


def section(theirs: list[Any], ours: list[Any]) -> Section:
    """Lay out what was measured, one mapping a boot."""
    both = {"pytest-nixos": ours, "test driver": theirs}
    rows = []
    for key, what in (
        ("shell_s", "start to the first answer of the root shell"),
        ("up_s", "start to `multi-user.target`, with ours to a settled system"),
    ):
        samples = (Sample(values=tuple(m[key] for m in of), unit="s") for of in both.values())
        rows.append((what, *map(str, samples)))
    medians = {}
    for command in ours[0]["commands"]:
        samples_of = {
            who: Sample(values=tuple(v for m in of for v in m["commands"][command]), unit="ms")
            for who, of in both.items()
        }
        medians[command] = samples_of
        rows.append((f"`{command}`", *map(str, samples_of.values())))
    shown = "cat /etc/hostname"
    return Section(
        name="driver",
        title="The NixOS test driver itself",
        lead=(
            "One node of a NixOS test, booted in turn by nixpkgs' own driver (its Python from a nixpkgs tree, fetched when this was measured) and by "
            "`--nixos-test`, without a snapshot; then commands over its `machine.execute` and over our channel. The driver waits for a unit, "
            "ours until nothing is left to start."
        ),
        header=("what", *both),
        rows=tuple(rows),
        bars=tuple(
            Bar(label=who, value=sample.median, ours=who == "pytest-nixos")
            for who, sample in medians[shown].items()
        ),
        bars_title=f"{shown}, the driver itself",
        bars_unit="ms",
    )


def _tree() -> Path:
    """Return a nixpkgs tree that has the driver.

    :raises RunFailed: if there is none.
    """
    named = os.environ.get("PYTEST_NIXOS_NIXPKGS")
    if named:
        tree = Path(named)
    else:
        say(f"driver: fetching {RELEASE}")
        done = subprocess.run(
            [*NIX, "flake", "prefetch", "--json", RELEASE],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RunFailed(
                f"no nixpkgs tree: {RELEASE} cannot be fetched; name one by PYTEST_NIXOS_NIXPKGS"
            )
        tree = Path(json.loads(done.stdout)["storePath"])
    # Until 25.05 and since.
    for place in ("nixos/lib/test-driver/src", "nixos/lib/test-driver"):
        if (tree / place / "test_driver/__init__.py").is_file():
            return tree / place
    raise RunFailed(f"{tree}: no nixos/lib/test-driver in this tree")


def _built(flake: Path) -> Path:
    out = flake.with_name("driver")
    done = subprocess.run(
        [
            *(*NIX, "build", f"path:{flake}#{TEST}.driver", "--out-link", str(out)),
            *("--no-write-lock-file", *overrides("--override-input")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RunFailed(f"the test's driver does not build\n{done.stderr[-3000:]}")
    return out


def _counts(plan: Plan) -> dict[str, int]:
    return {command: plan.count(count) for command, count in COMMANDS.items()}


def _theirs(driver: Path, script: str, directory: Path, plan: Plan) -> Any:
    (directory / "out").mkdir(parents=True)
    for name, text in STUBS.items():
        (directory / "stubs" / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / "stubs" / name).write_text(text)
    (directory / "script").write_text(SCRIPT)
    measured = directory / "measured.json"
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from test_driver import main; main()"),
            # A shell that is not bash would stay between the driver and QEMU.
            *("--start-scripts", f"exec {script}", "--global-timeout", BOOT_LIMIT_S),
            *("--output_directory", str(directory / "out"), str(directory / "script")),
        ],
        env={
            **os.environ,
            "PYTHONPATH": f"{directory / 'stubs'}:{driver}",
            "QEMU_OPTS": accelerator(),
            "PYTEST_NIXOS_BENCH_COMMANDS": json.dumps(_counts(plan)),
            "PYTEST_NIXOS_BENCH_OUT": str(measured),
            "TMPDIR": str(directory),
            "vlans": "",
        },
        cwd=directory,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode or not measured.exists():
        raise RunFailed(f"the test driver\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return json.loads(measured.read_text())


def _ours(home: Path, flake: Path, plan: Plan) -> Any:
    out = home / "driver-ours.json"
    run = run_pytest(
        home,
        str(INSIDE / "measure_driver.py"),
        *("--nixos-test", f"path:{flake}#{TEST}.nodes.{HOST}", *overrides()),
        *("--nixos-snapshot", "off", "--nixos-boot-timeout", BOOT_LIMIT_S),
        flakes=(),
        cwd=flake,
        environment={
            "PYTEST_NIXOS_BENCH_COMMANDS": json.dumps(_counts(plan)),
            "PYTEST_NIXOS_BENCH_OUT": str(out),
        },
    )
    answers, settled = _ANSWERS.search(run.output), _SETTLED.search(run.output)
    if answers is None or settled is None:
        raise RunFailed(f"no times in what pytest said\n{run.output[-3000:]}")
    return {
        "shell_s": float(answers[1]),
        "up_s": float(settled[1]),
        "commands": json.loads(out.read_text()),
    }
