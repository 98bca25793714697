"""``pytest-nixos hosts``: the hosts of a flake."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from pytest_nixos.cli.command import Commands
from pytest_nixos.cli.default_flake import default_flake
from pytest_nixos.nix.argv import NixSettings
from pytest_nixos.nix.refs import HostSelection

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the command."""
    hosts = commands.add_parser("hosts", help="list the hosts of a flake")
    hosts.add_argument("flake", metavar="REF", nargs="?", default=".")
    hosts.set_defaults(command=_hosts)


def _hosts(options: argparse.Namespace) -> Iterator[str]:
    selection = HostSelection.parse(options.flake, cwd=Path.cwd())
    yield from default_flake(selection.flake, NixSettings()).host_names()
