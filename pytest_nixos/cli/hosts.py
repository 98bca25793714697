"""``pytest-nixos hosts``: the hosts of a flake."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from pytest_nixos.cli.command import Commands
from pytest_nixos.cli.default_flake import default_flake
from pytest_nixos.cli.nix_options import add_nix_options, nix_settings
from pytest_nixos.nix.refs import FileRef, HostRef, HostSelection

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the command."""
    hosts = commands.add_parser("hosts", help="list the hosts of a flake, or of a Nix file")
    hosts.add_argument("flake", metavar="REF", nargs="?", default=".")
    hosts.add_argument("--file", metavar="FILE", help="of this file, as with --nixos-file")
    hosts.add_argument("--json", action="store_true", help="as a JSON list of name and ref")
    add_nix_options(hosts)
    hosts.set_defaults(command=_hosts)


def _hosts(options: argparse.Namespace) -> Iterator[str]:
    cwd = Path.cwd()
    flake = (
        FileRef.parse(options.file, cwd=cwd)
        if options.file
        else HostSelection.parse(options.flake, cwd=cwd).flake
    )
    names = default_flake(flake, nix_settings(options)).host_names()
    if not options.json:
        yield from names
        return
    hosts = [{"name": name, "ref": str(HostRef(flake, name))} for name in names]
    yield json.dumps(hosts, indent=2)
