"""``pytest-nixos hosts``: the hosts of a flake."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from pytest_nixos.cli.command import Commands
from pytest_nixos.nix.argv import NixSettings
from pytest_nixos.nix.refs import HostSelection
from pytest_nixos.plugin.evaluate import instrumentation, make_nix

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the command."""
    hosts = commands.add_parser("hosts", help="list the hosts of a flake")
    hosts.add_argument("flake", metavar="REF", nargs="?", default=".")
    hosts.set_defaults(command=_hosts)


def _hosts(options: argparse.Namespace) -> Iterator[str]:
    selection = HostSelection.parse(options.flake, cwd=Path.cwd())
    yield from make_nix(NixSettings(), instrumentation()).host_names(selection.flake)
