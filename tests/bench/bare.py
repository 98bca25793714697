"""The bare run script, as a user starts it, of a host that says on its console when no unit is queued any more.

The plugin boots the same host, so that both are timed to the same moment.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pexpect

from tests.bench.inside.machines import used_s
from tests.bench.rig import BOOT_LIMIT_S, EXAMPLE, HOST, accelerator, overrides

__all__ = ["BareBoot", "boot", "make_telling_flake", "run_script"]

#: input of the flake that holds the example's own inputs
INPUT = "example"
_FINISHED = "bench: no unit is queued"
# Its own job ends as it starts, since it is Type=simple.
_FLAKE = f"""{{
  inputs.{INPUT}.url = "path:{EXAMPLE}";
  outputs = {{ {INPUT}, ... }}: {{
    nixosConfigurations.{HOST} = {INPUT}.nixosConfigurations.{HOST}.extendModules {{
      modules = [
        ({{ pkgs, ... }}: {{
          systemd.services.bench-boot-ends = {{
            wantedBy = [ "multi-user.target" ];
            serviceConfig.Type = "simple";
            serviceConfig.ExecStart =
              "${{pkgs.bash}}/bin/bash -c 'systemctl is-system-running --wait; echo {_FINISHED} >/dev/console'";
          }};
        }})
      ];
    }};
  }};
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BareBoot:
    """One boot by the run script alone.

    :param login_s: seconds from its start to the login prompt.
    :param finished_s: to the moment when no unit was queued.
    :param processor_s: processor time of QEMU until then.
    """

    login_s: float
    finished_s: float
    processor_s: float


def make_telling_flake(home: Path) -> Path:
    """Write a flake of the host that tells, and return its directory."""
    directory = home / "telling"
    directory.mkdir(exist_ok=True)
    (directory / "flake.nix").write_text(_FLAKE)
    return directory


def run_script(flake: Path) -> Path:
    """Build the host's own VM, without the plugin's instrumentation."""
    out = flake.parent / "vm"
    attribute = f"path:{flake}#nixosConfigurations.{HOST}.config.system.build.vm"
    features = ("--extra-experimental-features", "nix-command flakes")
    link = ("--out-link", str(out))
    locked = ("--no-write-lock-file", *overrides("--override-input", below=INPUT))
    subprocess.run(["nix", *features, "build", *locked, attribute, *link], check=True)
    (script,) = (out / "bin").glob("run-*-vm")
    return script


def boot(script: Path) -> BareBoot:
    """Start the host's own run script as a user would, until no unit is queued."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        environment = {
            **os.environ,
            "NIX_DISK_IMAGE": f"{directory}/disk.qcow2",
            "TMPDIR": directory,
            "USE_TMPDIR": "1",
            "QEMU_OPTS": f"-nographic -no-reboot {accelerator()}",
            "QEMU_KERNEL_PARAMS": "console=ttyS0 no_timer_check",
        }
        started_s = time.monotonic()
        child = pexpect.spawn(str(script), env=environment, timeout=BOOT_LIMIT_S, cwd=directory)
        seen_s: dict[int, float] = {}
        try:
            while len(seen_s) < 2:
                which = child.expect(["login:", _FINISHED])
                seen_s.setdefault(which, time.monotonic() - started_s)
            return BareBoot(
                login_s=seen_s[0], finished_s=seen_s[1], processor_s=used_s(child.pid or 0)
            )
        finally:
            child.close(force=True)
