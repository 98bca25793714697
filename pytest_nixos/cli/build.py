"""``pytest-nixos build``: build a host's machine as a test run would."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from pytest_nixos.backend_name import BackendName
from pytest_nixos.cli.command import Commands
from pytest_nixos.cli.default_flake import default_flakes
from pytest_nixos.cli.nix_options import add_nix_options, nix_settings
from pytest_nixos.errors import SettingsError
from pytest_nixos.nix.command.refs import HostSelection
from pytest_nixos.nix.homes import host_named

__all__ = ["add"]

_BUILT_HERE = ("auto", BackendName.VM.value, BackendName.CONTAINER.value)


def add(commands: Commands) -> None:
    """Declare the command."""
    build = commands.add_parser("build", help="build a host's machine and print its store path")
    build.add_argument("host", metavar="REF#HOST")
    build.add_argument("--backend", choices=_BUILT_HERE, default="auto")
    build.add_argument("--gc-root", metavar="LINK", type=Path, default=Path("result-machine"))
    add_nix_options(build)
    build.add_argument(
        "--snapshot",
        action="store_true",
        help="a VM whose state can be saved, as --nixos-snapshot auto",
    )
    build.set_defaults(command=_build)


def _build(options: argparse.Namespace) -> Iterator[str]:
    selection = HostSelection.parse(options.host, cwd=Path.cwd())
    if selection.host is None:
        raise SettingsError(f"{options.host}: names no host", remedy="write REF#HOST")
    flakes = default_flakes(nix_settings(options), snapshot=options.snapshot)
    host = host_named(flakes, selection)
    flake = flakes.of(host.flake)
    config = flake.evaluate(host.attr, backend=options.backend)
    yield str(flake.build(config, gc_root=options.gc_root))
