"""What a command of ``pytest-nixos`` is: its arguments, and a function that yields lines."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Protocol

__all__ = ["Command", "Commands"]

#: takes the parsed arguments, yields what is to be told, and raises :class:`NixosError` where the user is wrong
Command = Callable[[argparse.Namespace], Iterator[str]]


class Commands(Protocol):
    """Where a command registers itself, as :meth:`argparse.ArgumentParser.add_subparsers` returns it."""

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser:  # noqa: A002 - argparse's word
        """Add a command of that name."""
        ...
