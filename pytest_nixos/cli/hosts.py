"""``pytest-nixos hosts``: the hosts of a flake."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_nixos.cli.command import Commands
from pytest_nixos.cli.default_flake import default_flake
from pytest_nixos.cli.nix_options import add_nix_options, nix_settings
from pytest_nixos.errors import SettingsError
from pytest_nixos.nix.failures import no_such_host
from pytest_nixos.nix.refs import FileRef, HostRef, HostSelection

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the command."""
    hosts = commands.add_parser("hosts", help="list the hosts of a flake, or of a Nix file")
    hosts.add_argument("flake", metavar="REF", nargs="?")
    hosts.add_argument("--file", metavar="FILE", help="of this file, as with --nixos-file")
    hosts.add_argument(
        "--json", action="store_true", help="as a JSON list of name and ref, or name, file and attr"
    )
    add_nix_options(hosts)
    hosts.set_defaults(command=_hosts)


def _hosts(options: argparse.Namespace) -> Iterator[str]:
    named = _named(options)
    flake = named.flake
    names = default_flake(flake, nix_settings(options)).host_names()
    if named.attr is not None:
        if named.attr not in names:
            raise no_such_host(HostRef(flake, named.attr), names)
        names = (named.attr,)
    if not options.json:
        yield from names
        return
    yield json.dumps([_described(HostRef(flake, name)) for name in names], indent=2)


def _named(options: argparse.Namespace) -> HostSelection:
    cwd = Path.cwd()
    if options.file is None:
        return HostSelection.parse(options.flake or ".", cwd=cwd)
    if options.flake is not None:
        raise SettingsError(
            f"hosts: {options.flake} and --file {options.file}: hosts are listed of one of them",
            remedy="leave one out",
        )
    return HostSelection(FileRef.parse(options.file, cwd=cwd), None)


def _described(host: HostRef) -> Mapping[str, str]:
    """Return the host's name, and the values of the options that select it."""
    if isinstance(host.flake, FileRef):
        return {"name": host.attr, "file": host.flake.url, "attr": host.attr}
    return {"name": host.attr, "ref": str(host)}
