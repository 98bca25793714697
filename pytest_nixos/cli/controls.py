"""``pytest-nixos controls``: list controls, or explain one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from pytest_nixos.cli.command import Commands
from pytest_nixos.errors import SettingsError
from pytest_nixos.standards.control.model import STANDARDS
from pytest_nixos.standards.did_you_mean import did_you_mean
from pytest_nixos.standards.explain import explain, list_controls
from pytest_nixos.standards.load import load_catalogue
from pytest_nixos.standards.profile import load_profiles, select_controls

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the command."""
    controls = commands.add_parser("controls", help="list controls, or explain one")
    controls.add_argument("id", metavar="ID", nargs="?")
    controls.add_argument("--profile", action="append", default=[], metavar="NAME")
    controls.add_argument("--standard", metavar="NAME")
    controls.add_argument("--catalogue", action="append", default=[], metavar="DIR", type=Path)
    controls.set_defaults(command=_controls)


def _controls(options: argparse.Namespace) -> Iterator[str]:
    catalogue = load_catalogue(options.catalogue)
    if options.id is not None:
        yield explain(catalogue.control(options.id), catalogue)
        return
    controls = tuple(catalogue)
    if options.profile:
        profiles = load_profiles(catalogue, options.catalogue)
        controls = select_controls(options.profile, profiles, catalogue)
    if options.standard is not None:
        _check_standard(options.standard)
        controls = tuple(c for c in controls if options.standard in c.references)
    yield list_controls(controls)


def _check_standard(name: str) -> None:
    if name not in STANDARDS:
        raise SettingsError(
            f"no standard {name!r}{did_you_mean(name, STANDARDS)}",
            remedy=f"use one of {', '.join(sorted(STANDARDS))}",
        )
