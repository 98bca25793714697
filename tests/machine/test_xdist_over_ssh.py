"""Workers of xdist behind ssh: one that shares this machine's store, one with a store of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.machine.test_builders import BUILDER, Builders
from tests.machine.test_nix_command import TINY
from tests.machine.test_ssh_live import SERVE, SSHD

pytestmark = [
    pytest.mark.skipif("PYTEST_NIXOS_BUILDERS" not in os.environ, reason="PYTEST_NIXOS_BUILDERS=1"),
    pytest.mark.skipif(SSHD is None, reason="no sshd (PYTEST_NIXOS_SSHD)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mount namespaces"),
]

TEST = """
import socket, os, pathlib

def test_there(nixos_host_config, record_property):
    record_property("derivation is there", pathlib.Path(nixos_host_config.derivation).exists())
    record_property("store", os.stat("/nix/store").st_ino)
    assert nixos_host_config.host_name == "tiny"
"""


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builders]:
    made = Builders(tmp_path_factory.mktemp("machines"))
    with ExitStack() as stack:
        made.start("same", stack, serve=SERVE)
        made.start("other", stack, serve=BUILDER)
        yield made


@pytest.fixture
def flake(tmp_path: Path) -> Path:
    hosts = TINY[: TINY.index('        "tiny.example-1"')] + "".join(
        f"        {name} = host config;\n" for name in ("a", "b", "c", "d")
    )
    (tmp_path / "flake.nix").write_text(f"{hosts}      }};\n  }};\n}}\n")
    (tmp_path / "test_there.py").write_text(TEST)
    return tmp_path


def run(flake: Path, machines: Builders, *names: str) -> subprocess.CompletedProcess[str]:
    workers = [
        f"ssh={name}//ssh_config={machines.ssh_config}//python={sys.executable}//chdir={flake}"
        for name in names
    ]
    # As one word each: xdist takes a word that is a path for a test, to be copied with --rsyncdir.
    command = [
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--rootdir={flake}"),
        *(f"--nixos-flake=path:{flake}", "--nixos-suite=none", "--junit-xml=junit.xml", "-d"),
        *(f"--tx={worker}" for worker in workers),
    ]
    return subprocess.run(
        command, cwd=flake, capture_output=True, text=True, timeout=300, check=False
    )


def test_hosts_are_spread_over_two_machines(flake: Path, machines: Builders) -> None:
    done = run(flake, machines, "same", "other")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
    text = (flake / "junit.xml").read_text()
    # Instantiated where it is judged, also where the store is another one.
    assert text.count('name="derivation is there" value="True"') == 4
    stores = {part.partition('"')[0] for part in text.split('name="store" value="')[1:]}
    assert len(stores) == 2


def test_a_machine_with_another_flake_is_refused(flake: Path, machines: Builders) -> None:
    # The same path, and other content there.
    twin = machines.directory / "other-content"
    twin.mkdir(exist_ok=True)
    text = (flake / "flake.nix").read_text()
    (twin / "flake.nix").write_text(text.replace("echo > $out", "echo other > $out"))
    (twin / "test_there.py").write_text(TEST)
    with ExitStack() as stack:
        machines.start("twin", stack, serve=f"mount --bind {twin} {flake}\n{BUILDER}")
        done = run(flake, machines, "twin")
    assert done.returncode == 1, done.stdout
    assert "is another host on the machine of this worker" in done.stdout
