"""What generations need of the host machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pytest_nixos.generations.sources import Delta, OtherFlake, OtherHost

__all__ = ["StoreBridge"]


class StoreBridge(Protocol):
    """The host machine's side: builds generations and exports what the guest lacks."""

    def build_generation(self, source: Delta | OtherHost | OtherFlake) -> Path:
        """Build the toplevel that the machine would run of `source`."""
        ...

    def holds(self, path: Path) -> bool:
        """Whether `path` lies in the host machine's store."""
        ...

    def closure(self, path: Path) -> Sequence[Path]:
        """Return the store paths that `path` needs, itself included."""
        ...

    def registration(self, paths: Sequence[Path]) -> bytes:
        """Return what ``nix-store --load-db`` reads."""
        ...

    def export(self, paths: Sequence[Path]) -> bytes:
        """Return what ``nix-store --import`` reads."""
        ...
