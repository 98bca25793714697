"""``pytest-nixos``: look at the machine, at a flake's hosts, at the controls, without running a
test.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

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
_BY_SIGNAL = 128  # as a shell says it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 4 where the user's command is wrong, or
    what the command says.
    """
    _open_standard_streams()
    options = _parsed(sys.argv[1:] if arguments is None else list(arguments))
    command: Command = options.command
    try:
        with _ended_by_signals():
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
    except KeyboardInterrupt:
        return _BY_SIGNAL + signal.SIGINT
    except BrokenPipeError:  # nobody reads any more: `... | head`
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)  # else Python complains as it ends
        return _BY_SIGNAL + signal.SIGPIPE
    return 0


def _open_standard_streams() -> None:
    """Give a process that was started without one of them (`<&-`) an empty one."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest descriptor that is free: the one that is missing.
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - as long as the process


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Take down what was begun where the terminal goes or somebody ends this process."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(_BY_SIGNAL + number)

    default = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in default:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in default:
            signal.signal(number, signal.SIG_DFL)


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


class _Version(argparse.Action):
    """Looks the version up, which takes a while, where it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_words: object) -> None:
        from pytest_nixos import __version__

        sys.stdout.write(f"pytest-nixos {__version__}\n")
        parser.exit()


def _parser(word: str = "") -> argparse.ArgumentParser:
    """Declare the command `word`, or all where it is none: each loads what it works with, and a
    shell does not wait for the judge.
    """
    parser = argparse.ArgumentParser(prog="pytest-nixos", description=__doc__)
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    wanted = [module for module, words in _MODULES.items() if word in words] or _MODULES
    for module in wanted:
        importlib.import_module(f"pytest_nixos.cli.{module}").add(commands)
    return parser
