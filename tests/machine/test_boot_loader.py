"""A VM with a boot loader: a reboot comes into what was switched to, and its menu can be told to
go back, though installing the new system names every entry anew: by number as nixpkgs up to 26.05,
then by hash, with the new one ``preferred``, as 26.11 where boots are counted.

``PYTEST_NIXOS_LIFE_VM=1`` tries on it what a container cannot show of the suite life: that what was switched to
is what boots, and a full boot partition; half an hour without KVM on a busy machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "example-flake"
OVERRIDES: dict[str, str] = json.loads(os.environ.get("PYTEST_NIXOS_TEST_OVERRIDES", "{}"))
LIMIT_S = 1200
LIFE_LIMIT_S = 7200

pytestmark = pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test")

_CHECK = """
import pytest

from pytest_nixos import BootsFrom, Generations, Machine

@pytest.mark.nixos_requires("boot-loader")
def test_reboots(nixos_fresh_machine: Machine, nixos_fresh_generations: Generations) -> None:
    life = nixos_fresh_generations
    assert nixos_fresh_machine.boots_from is BootsFrom.LOADER
    # 90 s are too few for the boot partition where the machine is busy.
    patience = "systemctl show --property=DefaultDeviceTimeoutUSec --property=DefaultTimeoutStartUSec"
    assert set(nixos_fresh_machine.run(patience).stdout_text.split()) == {
        "DefaultDeviceTimeoutUSec=10min", "DefaultTimeoutStartUSec=3min"
    }
    old = life.links
    assert old.default == old.current == old.profile
    new = life.boot('''{
      environment.etc."new".text = "new";
      boot.loader.systemd-boot.bootCounting.enable = true;
    }''').toplevel
    assert (life.links.current, life.links.default) == (old.current, new)
    assert life.reboot().after.current == new
    assert nixos_fresh_machine.run("cat /etc/new").stdout_text == "new"
    names = nixos_fresh_machine.run("ls /boot/loader/entries").stdout_text.split()
    assert len(names) == 2 and not [name for name in names if "generation" in name], names
    back = life.reboot(into=1).after
    assert (back.current, back.booted, back.default) == (old.current, old.current, new)
"""


def test_reboots_come_into_the_boot_default(tmp_path: Path) -> None:
    check = tmp_path / "test_reboots.py"
    check.write_text(_CHECK)
    done = run(tmp_path, str(check), limit_s=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(
    not os.environ.get("PYTEST_NIXOS_LIFE_VM"),
    reason="PYTEST_NIXOS_LIFE_VM=1 switches and boots a VM with a boot loader again and again",
)
def test_a_switch_is_what_boots_and_a_full_boot_partition_is_told(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = run(
        tmp_path,
        *("--nixos-profile", "life", "-k", "RBK-022 or RBK-023"),
        *("--nixos-backend", "vm", "--nixos-report", f"json:{report}"),
        limit_s=LIFE_LIMIT_S,
    )
    findings = {f["control"]: f for f in json.loads(report.read_text())["findings"]}

    assert {c: f["outcome"] for c, f in findings.items()} == {
        "RBK-022": "passed",
        "RBK-023": "passed",
    }, done.stdout[-9000:]
    assert findings["RBK-023"]["observed"]["came up"] == "the old generation"


def run(folder: Path, *arguments: str, limit_s: float) -> subprocess.CompletedProcess[str]:
    """Run pytest on the host with a boot loader, as a user would."""
    overrides = [
        w for name, ref in OVERRIDES.items() for w in ("--nixos-override-input", name, ref)
    ]
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*argv, "--nixos-flake", f"{EXAMPLE}#loader-host", *overrides, *arguments],
        cwd=folder,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )
