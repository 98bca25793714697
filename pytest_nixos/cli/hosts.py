"""``pytest-nixos hosts``: the hosts of a flake."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_nixos.cli.command import Commands
from pytest_nixos.cli.default_flake import default_flakes
from pytest_nixos.cli.nix_options import add_nix_options, nix_settings
from pytest_nixos.errors import SettingsError
from pytest_nixos.nix.command.refs import FileRef, FlakeRef, HomesRef, HostRef, HostSelection
from pytest_nixos.nix.failure.absent import no_hosts_or_homes, no_such_host
from pytest_nixos.nix.failure.evaluation import NoHosts
from pytest_nixos.nix.flakes import Flakes
from pytest_nixos.nix.homes import home_names, host_named

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the command."""
    hosts = commands.add_parser(
        "hosts", help="list the hosts of a flake, its homes (homeConfigurations), or of a Nix file"
    )
    hosts.add_argument("flake", metavar="REF", nargs="?")
    hosts.add_argument("--file", metavar="FILE", help="of this file, as with --nixos-file")
    hosts.add_argument(
        "--json", action="store_true", help="as a JSON list of name and ref, or name, file and attr"
    )
    add_nix_options(hosts)
    hosts.set_defaults(command=_hosts)


def _hosts(options: argparse.Namespace) -> Iterator[str]:
    named = _named(options)
    flakes = default_flakes(nix_settings(options))
    found = _listed(flakes, named.flake)
    if named.attr is not None:
        one = host_named(flakes, named)
        known = [ref.attr for ref in found if type(ref.flake) is type(named.flake)]
        homes = [ref.attr for ref in found if _is_home(ref)]
        if one not in found:
            raise no_such_host(one, known, homes)
        found = [one]
    if not options.json:
        yield from (str(ref).partition("#")[2] if _is_home(ref) else ref.attr for ref in found)
        return
    yield json.dumps([_described(ref) for ref in found], indent=2)


def _listed(flakes: Flakes, flake: FlakeRef) -> list[HostRef]:
    """Return the hosts, and after them the homes."""
    homes = [HostRef(HomesRef(flake.url), name) for name in home_names(flakes, flake)]
    try:
        return [*(HostRef(flake, name) for name in flakes.of(flake).host_names()), *homes]
    except NoHosts as err:
        if not homes:
            raise no_hosts_or_homes(flake) from err
        return homes


def _is_home(host: HostRef) -> bool:
    return isinstance(host.flake, HomesRef)


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
