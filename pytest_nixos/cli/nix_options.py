"""What commands that ask Nix have in common: its settings, and how an error is told."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_nixos.nix.command.argv import NixSettings

__all__ = ["add_nix_options", "in_words_of_the_command", "nix_settings"]

_OPTIONS = (
    ("override-input", ("NAME", "REF"), "use another flake as an input, as nix does (repeatable)"),
    ("nix-option", ("NAME", "VALUE"), "setting for Nix, as for nix --option (repeatable)"),
)


def add_nix_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a command that asks Nix."""
    for name, metavar, explanation in _OPTIONS:
        parser.add_argument(
            f"--{name}", action="append", nargs=2, default=[], metavar=metavar, help=explanation
        )
    parser.add_argument("-v", "--verbose", action="store_true", help="show the trace of an error")


def nix_settings(options: argparse.Namespace) -> NixSettings:
    """Read them."""
    from pytest_nixos.nix.command.argv import NixSettings  # a shell asks no Nix

    return NixSettings(
        override_inputs=tuple((name, ref) for name, ref in options.override_input),
        nix_options=tuple((name, value) for name, value in options.nix_option),
    )


def in_words_of_the_command(text: str) -> str:
    """Return `text` with options of the pytest plugin as these commands have them."""
    for name in (*(option for option, *_ in _OPTIONS), "file"):
        text = text.replace(f"--nixos-{name}", f"--{name}")
    return text
