"""Machines of a NixOS test: ``lib.judge`` in its script, and ``--nixos-test``.

What boots a VM is asked for by ``PYTEST_NIXOS_NIXOS_TESTS=1``; the test driver is nixpkgs' own, from
the tree that ``PYTEST_NIXOS_NIXPKGS`` names.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.machine.test_example_flake import OVERRIDES
from tests.support.nixpkgs_tree import overlays

ROOT = Path(__file__).parents[2]
NIXPKGS = os.environ.get("PYTEST_NIXOS_NIXPKGS", "")
BOOTS = pytest.mark.skipif(
    "PYTEST_NIXOS_NIXOS_TESTS" not in os.environ, reason="PYTEST_NIXOS_NIXOS_TESTS=1"
)
REAL = pytest.mark.skipif(not NIXPKGS, reason="PYTEST_NIXOS_NIXPKGS names no nixpkgs tree")

pytestmark = pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test")

OWN = """
def test_own(host, nixos_machine):
    assert host.run("echo $USER").stdout == "root\\n"
    assert nixos_machine.backend.name == "test-driver"

def test_that_fails(host):
    assert not host.file("/etc/passwd").exists
"""

FLAKE = f"""
{{
  inputs.nixpkgs.url = "@NIXPKGS@";
  inputs.pytest-nixos = {{ url = "git+file://{ROOT}"; inputs.nixpkgs.follows = "nixpkgs"; }};
  outputs = {{ self, nixpkgs, pytest-nixos }}:
    let
      pkgs = if nixpkgs ? rev || builtins.pathExists "${{nixpkgs}}/pkgs/top-level" then
        import nixpkgs {{ system = "x86_64-linux"; overlays = @OVERLAYS@; }}
      else
        nixpkgs.legacyPackages.x86_64-linux;
      judge = arguments: pytest-nixos.lib.judge ({{ pytest-nixos = "{sys.prefix}"; }} // arguments);
      test = run: arguments: run {{
        name = "mytest";
        nodes.web-1 = {{
          virtualisation.vlans = [ ];
          networking.firewall.allowedTCPPorts = [ 80 ];
          system.stateVersion = "24.05";
        }};
        testScript = {{ nodes, ... }}: ''
          web_1.wait_for_unit("multi-user.target")
          ${{judge ({{ node = nodes.web-1; }} // arguments)}}
          web_1.succeed("true")
        '';
      }};
    in
    {{
      judged = test pkgs.testers.runNixOSTest {{ tests = [ ./test_own.py ]; suites = [ "kernel-sysctl" ]; enforce = false; }};
      old = test pkgs.testers.nixosTest {{ }};
      older = test pkgs.nixosTest {{ }};
      image = pkgs.testers.runNixOSTest {{
        name = "image";
        nodes.machine = {{ virtualisation.useNixStoreImage = true; virtualisation.writableStore = false; }};
        testScript = {{ nodes, ... }}: judge {{ node = nodes.machine; }};
      }};
      container = judge {{ node = {{ system = {{ name = "x"; build.toplevel = "/x"; }}; networking.hostName = "x"; boot.isContainer = true; virtualisation.host.pkgs = pkgs; }}; }};
      nothing = judge {{ node = {{ virtualisation.host.pkgs = pkgs; }}; name = "x"; }};
      checks.x86_64-linux.two = pkgs.testers.runNixOSTest {{
        name = "two";
        nodes.web = {{ networking.firewall.allowedTCPPorts = [ 80 ]; system.stateVersion = "24.05"; }};
        nodes.db = {{ system.stateVersion = "24.05"; }};
        testScript = "start_all()";
      }};
      checks.x86_64-linux.mixed = self.checks.x86_64-linux.two // {{ config.containers.box = {{ config = {{ }}; }}; }};
      checks.x86_64-linux.none = pkgs.runCommand "none" {{ }} "";
    }};
}}
"""


def flake_in(directory: Path, nixpkgs: str, own_overlays: str = "[ ]") -> Path:
    text = FLAKE.replace("@NIXPKGS@", nixpkgs).replace("@OVERLAYS@", own_overlays)
    (directory / "flake.nix").write_text(text)
    (directory / "test_own.py").write_text(OWN)
    return directory


@pytest.fixture(scope="module")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flake_in(tmp_path_factory.mktemp("flake"), "nixpkgs")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = str(Path(NIXPKGS).resolve())
    flake = flake_in(tmp_path_factory.mktemp("real"), f"path:{tree}", overlays(NIXPKGS))
    # Without a lock file each command would copy the whole tree again.
    subprocess.run([*NIX, "flake", "lock"], cwd=flake, check=True)
    return flake


NIX = ("nix", "--extra-experimental-features", "nix-command flakes")


def nix(flake: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = () if (flake / "flake.lock").exists() else overridden("--override-input")
    return subprocess.run(
        [*NIX, *arguments, *words, "--no-write-lock-file", "--option", "substitute", "false"],
        cwd=flake,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def overridden(option: str) -> list[str]:
    return [word for name, ref in OVERRIDES.items() for word in (option, name, ref)]


def evaluated(flake: Path, attribute: str) -> str:
    done = nix(flake, "eval", "--raw", f".#{attribute}")
    assert done.returncode == 0, done.stderr
    return done.stdout


LINE = re.compile(
    r'__import__\("runpy"\)\.run_path\("(/nix/store/[^"]*-in_driver\.py)"\)\["judge"\]\((\w+), "(/nix/store/[^"]*\.json)"\)'
)


def test_a_line_of_the_script_names_the_machine_as_the_driver_does(flake: Path) -> None:
    first, line, last = evaluated(flake, "judged.driver.testScript").splitlines()
    assert (first, last) == (
        'web_1.wait_for_unit("multi-user.target")',
        'web_1.succeed("true")',
    )
    found = LINE.fullmatch(line)
    assert found is not None, line
    assert found[2] == "web_1"


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("container", "judge: x is a container; it judges the VMs of a test"),
        ("nothing", "node is no evaluated node: give nodes.<name>"),
    ],
)
def test_what_cannot_be_judged_is_told_when_it_is_evaluated(
    flake: Path, attribute: str, words: str
) -> None:
    done = nix(flake, "eval", "--raw", f".#{attribute}")
    assert done.returncode != 0
    assert words in done.stderr


@REAL
@pytest.mark.parametrize("attribute", ["judged", "old", "older", "image"])
def test_a_real_nixpkgs_takes_the_line(real: Path, attribute: str) -> None:
    script = evaluated(real, f"{attribute}.driver.testScript")
    assert LINE.search(script), script


def judged(
    flake: Path, tmp_path: Path, *arguments: str
) -> tuple[int, Sequence[dict[str, Any]], str]:
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)),
            *(*arguments, "--nixos-report", f"json:{report}"),
            *(() if (flake / "flake.lock").exists() else overridden("--nixos-override-input")),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    findings = json.loads(report.read_text())["findings"] if report.exists() else []
    return done.returncode, findings, done.stdout + done.stderr


CONFIG = """
def test_own(nixos_host_config):
    host = nixos_host_config
    print("NODE", host.name, host.host_name, host.firewall.everywhere.tcp, host.backend, host.program, host.is_test_node)
    print("DELTA", host.changed)
"""


def judge_configs(flake: Path, tmp_path: Path, test: str) -> tuple[int, str]:
    (tmp_path / "test_config.py").write_text(CONFIG)
    status, _, said = judged(
        flake,
        tmp_path,
        *("-s", "--nixos-test", f"{flake}{test}", str(tmp_path / "test_config.py")),
    )
    return status, said


def test_the_nodes_of_a_test_are_hosts(flake: Path, tmp_path: Path) -> None:
    status, said = judge_configs(flake, tmp_path, "#checks.x86_64-linux.two")
    assert status == 0, said
    assert "2 passed" in said
    assert re.search(
        r"NODE web web \(PortRange\(first=80, last=80\),\) vm bin/run-web-vm True", said
    ), said
    # What runs is the node itself.
    assert said.count("DELTA {}") == 2, said


def test_one_node_is_named(flake: Path, tmp_path: Path) -> None:
    status, said = judge_configs(flake, tmp_path, "#checks.x86_64-linux.two.nodes.db")
    assert status == 0, said
    assert "NODE db db () vm" in said
    assert "1 passed" in said


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ("#checks.x86_64-linux.two.nodes.dbb", "no such node; the test has db, web"),
        ("#checks.x86_64-linux.three", "has no output checks.x86_64-linux.three"),
        ("#checks.x86_64-linux.none", "it is no NixOS test: it has no nodes"),
        ("", "names no test"),
    ],
)
def test_what_is_no_test_is_told(flake: Path, tmp_path: Path, test: str, words: str) -> None:
    status, said = judge_configs(flake, tmp_path, test)
    assert status == 4, said
    assert words in said


def test_a_container_of_a_test_is_told(flake: Path, tmp_path: Path) -> None:
    """As nixpkgs of 26.05 has it: ``containers`` beside ``nodes``."""
    status, said = judge_configs(flake, tmp_path, "#checks.x86_64-linux.mixed")
    assert status == 1, said
    assert "box: it is a container of its test" in said
    assert "2 passed, 1 error" in said
    status, said = judge_configs(flake, tmp_path, "#checks.x86_64-linux.mixed.nodes.web")
    assert status == 0, said


@REAL
def test_nodes_of_a_real_nixpkgs(real: Path, tmp_path: Path) -> None:
    status, said = judge_configs(real, tmp_path, "#checks.x86_64-linux.two.nodes.web")
    assert status == 0, said
    assert "vm bin/run-web-vm True" in said


@BOOTS
def test_a_node_boots_as_its_test_boots_it(flake: Path, tmp_path: Path) -> None:
    status, findings, said = judged(
        flake,
        tmp_path,
        *("--nixos-test", f"{flake}#checks.x86_64-linux.two.nodes.web"),
        *("--nixos-suite", "firewall"),
        *("--nixos-suite", "boot", "--nixos-suite", "rollback", "--nixos-boot-timeout", "900"),
    )
    outcomes = {finding["control"]: finding["outcome"] for finding in findings}
    # Nothing listens on the port that it opens.
    assert {control for control, outcome in outcomes.items() if outcome == "failed"} == {"FW-006"}
    assert status == 1, said
    assert "TX timeout" not in said
    assert {"FW-003", "FW-004", "BOOT-001"} <= {c for c, o in outcomes.items() if o == "passed"}
    assert outcomes["RBK-001"] == "not-applicable"


# The driver's own dependencies, for which nothing here depends on what they do.
STUBS = {
    "colorama.py": "class _Any:\n    def __getattr__(self, name): return ''\nFore = Style = _Any()\n",
    "junit_xml.py": "TestCase = TestSuite = None\n",
    "ptpython/__init__.py": "",
    "ptpython/repl.py": "embed = None\n",
}


@BOOTS
@REAL
def test_the_drivers_own_machine_is_judged(flake: Path, tmp_path: Path) -> None:
    for name, text in STUBS.items():
        (tmp_path / "stubs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "stubs" / name).write_text(text)
    built = nix(flake, "build", ".#judged.driver", "--out-link", str(tmp_path / "driver"))
    assert built.returncode == 0, built.stderr
    out = tmp_path / "out"
    out.mkdir()
    driver = f"{NIXPKGS}/nixos/lib/test-driver"
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from test_driver import main; main()"),
            # A shell that is not bash would stay between the driver and QEMU.
            *("--start-scripts", f"exec {(tmp_path / 'driver/start-scripts').read_text().strip()}"),
            *("--global-timeout", "1500", "--output_directory", str(out)),
            str(tmp_path / "driver/test-script"),
        ],
        env={
            **os.environ,
            "PYTHONPATH": f"{tmp_path / 'stubs'}:{driver}",
            "QEMU_OPTS": "-machine accel=tcg",
            "vlans": "",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    reports = out / "pytest-nixos-web-1"
    findings = json.loads((reports / "report.json").read_text())["findings"]
    outcomes = {finding["control"]: finding["outcome"] for finding in findings}
    assert outcomes["SYS-001"] == "passed", done.stdout
    assert (reports / "exit-status").read_text() == "1\n"
    log = (reports / "log.txt").read_text()
    summary = log.partition("short test summary")[2]
    assert "::test_that_fails[web-1]" in summary
    assert "::test_own" not in summary
