"""testinfra's modules, all probes and all faults on real guests: a container and a virtual
machine of the example flake.

``PYTEST_NIXOS_TEST_OVERRIDES`` is what ``example-flake/offline-nixpkgs/prepare --json`` prints
(``./dev test`` sets it); ``PYTEST_NIXOS_TEST_HOSTS`` names host refs to try in place of the example
flake's, separated by blanks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "example-flake"
OVERRIDES: dict[str, str] = json.loads(os.environ.get("PYTEST_NIXOS_TEST_OVERRIDES", "{}"))
HOSTS = os.environ.get("PYTEST_NIXOS_TEST_HOSTS", "").split() or [
    f"{EXAMPLES}#{name}" for name in ("container-host", "llm-host") if OVERRIDES
]
LIMIT_S = 900
# A host of the name, and the card, of another flake's.
NAMESAKE = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }: {
    nixosConfigurations.nats-1 = nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [ {
        boot.isContainer = true;
        networking.useDHCP = false;
        networking.interfaces.eth0.useDHCP = true;
        system.stateVersion = "24.05";
      } ];
    };
  };
}
"""

pytestmark = [
    pytest.mark.skipif(not HOSTS, reason="no offline nixpkgs (./dev test) and no hosts named"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]


@pytest.mark.parametrize("host", HOSTS or ["none"], ids=lambda ref: ref.rpartition("#")[2])
def test_on_a_guest(host: str, tmp_path: Path) -> None:
    run_on(
        host, tmp_path, "guest_hosts.py", "guest_observe.py", "guest_forged.py", "guest_faults.py"
    )


@pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs (./dev test)")
def test_on_a_cluster(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "flake.nix").write_text(NAMESAKE)
    run_on(f"{EXAMPLES}#nats-1", tmp_path, "guest_cluster.py", cwd=tmp_path)


@pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs (./dev test)")
def test_switched_and_booted(tmp_path: Path) -> None:
    run_on(f"{EXAMPLES}#container-host", tmp_path, "guest_sameness.py")


def run_on(
    host: str, tmp_path: Path, *names: str, cwd: Path | None = None, more: tuple[str, ...] = ()
) -> None:
    """Run test files of the folder ``on_guest`` on a host, as a user would.

    :param more: further arguments of pytest.
    """
    overrides = [
        w for name, ref in OVERRIDES.items() for w in ("--nixos-override-input", name, ref)
    ]
    files = [str(HERE / "on_guest" / name) for name in names]
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nixos-flake", host]
    done = subprocess.run(
        [*argv, *overrides, *more, "--tb=short", f"--basetemp={tmp_path / 'temp'}", *files],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
