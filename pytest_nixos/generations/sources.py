"""What a generation can be made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_nixos.errors import GenerationError

__all__ = ["Delta", "OtherFlake", "OtherHost", "Source", "Specialisation", "StorePath", "as_source"]

_STORE = "/nix/store/"


@dataclass(frozen=True, slots=True)
class Delta:
    """The machine's own system with a further NixOS module, given as text."""

    module: str

    @classmethod
    def of_file(cls, path: Path) -> Delta:
        """Read the module from a file; relative paths in it are not found, because its text
        travels alone.

        :raises GenerationError: if it cannot be read.
        """
        try:
            return cls(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as err:
            raise GenerationError(
                f"{path}: the module cannot be read: {err}", remedy="name a readable file in UTF-8"
            ) from err


@dataclass(frozen=True, slots=True)
class OtherHost:
    """Another host of the same flake, as this machine would run it."""

    attr: str


@dataclass(frozen=True, slots=True)
class OtherFlake:
    """The host as another flake has it, or the same flake at another revision.

    :param url: a flake ref (``github:me/infra/stable``), or ``""`` for the machine's own flake.
    :param revision: git revision of that flake, ``""`` for what the flake ref names.
    :param attr: the host there, ``""`` for one of the same name.
    """

    url: str = ""
    revision: str = ""
    attr: str = ""


@dataclass(frozen=True, slots=True)
class Specialisation:
    """A specialisation of the system that the machine's host declares."""

    name: str


@dataclass(frozen=True, slots=True)
class StorePath:
    """A toplevel that is built already, or lies in the guest's store."""

    path: str


Source = Delta | OtherHost | OtherFlake | Specialisation | StorePath


def as_source(what: Source | str | Path) -> Source:
    """Take a plain string as a store path or as module text, and a path as the file of a module."""
    if isinstance(what, Path):
        return StorePath(str(what)) if str(what).startswith(_STORE) else Delta.of_file(what)
    if isinstance(what, str):
        return StorePath(what) if what.startswith(_STORE) else Delta(what)
    return what
