"""Hosts' tests on Nix's own builders: eight derivations of ``lib.checkHost`` on two machines over ssh.

Each builder is an sshd on loopback in a mount namespace of its own, with a store of its own. What
the machine needs is copied to both, so it takes minutes: ``PYTEST_NIXOS_BUILDERS=1`` asks for it,
``PYTEST_NIXOS_SSHD`` names the sshd. Figures are told at the end (``-rP``).
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.machine.test_example_flake import OVERRIDES
from tests.machine.test_ssh_live import SERVE, SSHD, Rig

ROOT = Path(__file__).parents[2]
HOSTS = 8

pytestmark = [
    pytest.mark.skipif("PYTEST_NIXOS_BUILDERS" not in os.environ, reason="PYTEST_NIXOS_BUILDERS=1"),
    pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test"),
    pytest.mark.skipif(SSHD is None, reason="no sshd (PYTEST_NIXOS_SSHD)"),
]

# Judged by the config alone: what is tried is where they run, not how long a guest boots.
FLAKE = f"""
{{
  inputs.nixpkgs.url = "nixpkgs";
  inputs.example = {{ url = "git+file://{ROOT}?dir=example-flake"; inputs.nixpkgs.follows = "nixpkgs"; }};
  inputs.pytest-nixos = {{ url = "git+file://{ROOT}"; inputs.nixpkgs.follows = "nixpkgs"; }};
  outputs = {{ self, nixpkgs, example, pytest-nixos }}:
    let
      check = name: pytest-nixos.lib.checkHostReport {{
        inherit name;
        host = example.nixosConfigurations.llm-host;
        flake = example;
        pytest-nixos = "{sys.prefix}";
        requiredSystemFeatures = [ ];
        rollback = false;
        suites = [ "none" ];
        tests = [ (builtins.toFile "test_own.py" "def test_own(nixos_host_config): assert nixos_host_config.host_name == 'llm-host'") ];
      }};
      eight = prefix: nixpkgs.lib.genAttrs (map (n: "${{prefix}}${{toString n}}") (nixpkgs.lib.range 1 {HOSTS})) check;
    in
    {{
      one = eight "one";
      two = eight "two";
      checks.x86_64-linux = eight "two";
    }};
}}
"""

# Another machine is one with another store.
BUILDER = 'mkdir -p "$1/nix" /nix && mount --bind "$1/nix" /nix && mkdir -p /nix/store\n' + SERVE


class Builders:
    """Builders by name, and how Nix reaches them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rigs: dict[str, Rig] = {}

    def start(self, name: str, stack: ExitStack, *, serve: str = BUILDER) -> None:
        place = self.directory / name
        place.mkdir()
        rig = Rig(place)
        (place / "nix.conf").write_text("build-users-group =\nsandbox = false\n")
        config = place / "sshd_config"
        config.write_text(
            config.read_text() + f"SetEnv NIX_CONF_DIR={place} PATH={os.environ['PATH']}\n"
        )
        argv = ["unshare", "--mount", "/bin/sh", "-c", serve, "builder", str(place), str(SSHD)]
        server = stack.enter_context(subprocess.Popen(argv))
        stack.callback(server.terminate)
        for _ in range(100):
            assert server.poll() is None
            try:
                socket.create_connection(("127.0.0.1", rig.port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        self.rigs[name] = rig

    @property
    def ssh_config(self) -> Path:
        text = "".join(
            rig.client_config().read_text().replace("Host live", f"Host {name}")
            for name, rig in self.rigs.items()
        )
        path = self.directory / "ssh_config"
        path.write_text(text)
        return path

    def option(self, *names: str) -> str:
        return " ; ".join(f"ssh://{name} x86_64-linux - 1 1" for name in names)


@pytest.fixture(scope="module")
def builders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builders]:
    # Short, and where a store has room.
    directory = Path(tmp_path_factory.mktemp("builders"))
    made = Builders(directory)
    with ExitStack() as stack:
        for name in ("first", "second"):
            made.start(name, stack)
        yield made
    for name in made.rigs:
        shutil.rmtree(directory / name / "nix", ignore_errors=True)


@pytest.fixture(scope="module")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("flake")
    (directory / "flake.nix").write_text(FLAKE)
    return directory


def nix(flake: Path, builders: Builders, *arguments: str) -> tuple[str, float]:
    overrides = [w for name, ref in OVERRIDES.items() for w in ("--override-input", name, ref)]
    started_s = time.monotonic()
    done = subprocess.run(
        [
            *("nix", "--extra-experimental-features", "nix-command flakes"),
            *(*arguments, *overrides, "--no-write-lock-file"),
        ],
        cwd=flake,
        env=os.environ | {"NIX_SSHOPTS": f"-F {builders.ssh_config}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr, time.monotonic() - started_s


def built(flake: Path, builders: Builders, group: str, *names: str) -> tuple[str, float]:
    """Build a group of hosts' tests on builders alone."""
    wanted = [f".#{group}.{group}{n}" for n in range(1, HOSTS + 1)]
    options = ["--max-jobs", "0", "--builders", builders.option(*names), "--out-link", group]
    return nix(flake, builders, "build", "-L", *wanted, *options)


def hosts_on(said: str, name: str) -> set[str]:
    pattern = rf"building '[^']*-pytest-nixos-(\w+)\.drv' on 'ssh://{name}'"
    return set(re.findall(pattern, said))


def test_eight_hosts_on_two_builders(
    flake: Path, builders: Builders, record_property: Callable[[str, object], None]
) -> None:
    # What the tests need is on both first, so that copying is not what is measured.
    needed = ".#one.one1.closure"
    nix(flake, builders, "build", "--no-link", needed)
    for name in builders.rigs:
        nix(flake, builders, "copy", "--to", f"ssh://{name}", needed)
    said_one, one_s = built(flake, builders, "one", "first")
    said_two, two_s = built(flake, builders, "two", "first", "second")
    assert len(hosts_on(said_one, "first")) == HOSTS
    assert hosts_on(said_two, "first")
    assert hosts_on(said_two, "second")
    assert len(hosts_on(said_two, "first") | hosts_on(said_two, "second")) == HOSTS
    results = [*flake.glob("one*"), *flake.glob("two*")]
    assert len(results) == 2 * HOSTS
    assert {verdict(result) for result in results} == {("0\n", "1 passed")}
    # Nothing has changed, so nothing runs: not even with no builder at all.
    said, again_s = nix(flake, builders, "flake", "check", "--max-jobs", "0", "--builders", "")
    assert not hosts_on(said, "")
    figures = f"one builder {one_s:.1f} s, two {two_s:.1f} s; nix flake check again {again_s:.1f} s"
    record_property("figures", figures)
    sys.stdout.write(f"8 hosts: {figures}\n")


def verdict(result: Path) -> tuple[str, str]:
    counts = re.findall(r"(\d+ (?:passed|failed|skipped))", (result / "log.txt").read_text())
    return (result / "exit-status").read_text(), ", ".join(dict.fromkeys(counts))
