"""What a command of ``pytest-nixos`` is: its arguments, and a function that yields lines."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Protocol

__all__ = ["Command", "CommandEnd", "Commands"]

#: takes the parsed arguments, yields what is to be told, and raises :class:`NixosError` where the
#: user is wrong
Command = Callable[[argparse.Namespace], Iterator[str]]


class Commands(Protocol):
    """Where a command registers itself, as :meth:`argparse.ArgumentParser.add_subparsers`
    returns it.
    """

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser:  # noqa: A002 - argparse's word
        """Add a command of that name."""
        ...


class CommandEnd(Exception):
    """A command is over and has an exit status of its own.

    :param said: a last line for standard error, ``""`` for none.
    """

    def __init__(self, status: int, said: str = "") -> None:
        super().__init__(said)
        self.status = status
        self.said = said
