"""``pytest-nixos``: look at the machine, at a flake's hosts, at the controls, without running a
test.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from pytest_nixos import __version__
from pytest_nixos.cli.command import Command, CommandEnd
from pytest_nixos.cli.nix_options import in_words_of_the_command
from pytest_nixos.errors import NixosError
from pytest_nixos.local.text import printable, printable_lines

__all__ = ["main"]

#: Modules of this room, each with the commands that it adds, in the order that people see.
_MODULES = {
    "doctor": ("doctor",),
    "hosts": ("hosts",),
    "build": ("build",),
    "by_hand": ("shell", "console", "run"),
    "machines": ("machines", "ssh", "ssh-config", "ssh-proxy"),
    "controls": ("controls",),
    "diff": ("diff",),
    "trend": ("trend",),
    "ci": ("ci",),
    "cache": ("cache",),
}
_USAGE_EXIT = 4  # as pytest's own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 4 where the user's command is wrong, or
    what the command says.
    """
    options = _parsed(sys.argv[1:] if arguments is None else list(arguments))
    command: Command = options.command
    try:
        for text in command(options):
            for line in text.split("\n"):
                sys.stdout.write(f"{printable(line)}\n")
            sys.stdout.flush()
    except CommandEnd as end:
        sys.stderr.write(f"{printable(end.said)}\n" if end.said else "")
        return end.status
    except NixosError as err:
        detail = f"\n{err.detail}" if err.detail and getattr(options, "verbose", False) else ""
        said = f"{in_words_of_the_command(str(err))}{detail}"
        sys.stderr.write(f"ERROR: {printable_lines(said)}\n")
        return _USAGE_EXIT
    return 0


def _parsed(words: list[str]) -> argparse.Namespace:
    """Read the command line. What stands behind two dashes is nobody's here but the command's own:
    argparse drops the dashes themselves where they come first.
    """
    at = words.index("--") if "--" in words else len(words)
    options = _parser(words[0] if words else "").parse_args(words[:at])
    if at < len(words):
        if not hasattr(options, "behind"):
            return _parser().parse_args(words)
        options.behind = words[at + 1 :]
    return options


def _parser(word: str = "") -> argparse.ArgumentParser:
    """Declare the command `word`, or all where it is none: each loads what it works with, and a
    shell does not wait for the judge.
    """
    parser = argparse.ArgumentParser(prog="pytest-nixos", description=__doc__)
    parser.add_argument("--version", action="version", version=f"pytest-nixos {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    wanted = [module for module, words in _MODULES.items() if word in words] or _MODULES
    for module in wanted:
        importlib.import_module(f"pytest_nixos.cli.{module}").add(commands)
    return parser
