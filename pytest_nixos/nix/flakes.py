"""The flakes of a run."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.refs import FileRef, FlakeRef, HomesRef
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.flake import Flake

__all__ = ["Flakes"]


class Flakes:
    """The flakes of a run, each opened once."""

    def __init__(self, nix: Nix, instrumentation: Instrumentation) -> None:
        self.nix = nix
        self.instrumentation = instrumentation
        self._opened: dict[FlakeRef, Flake] = {}

    def forget(self) -> None:
        """Forget what was found out about the flakes: it was on another machine."""
        self._opened.clear()

    def registration(self, system: Path) -> bytes | None:  # noqa: ARG002 - of those without Nix
        """Return what the store's database says of all that `system` needs, ``None`` where Nix is
        here to be asked.
        """
        return None

    def of(self, ref: FlakeRef) -> Flake:
        """Return the flake of a ref."""
        if ref not in self._opened:
            kind: type[Flake] = Flake
            if isinstance(ref, FileRef):
                from pytest_nixos.nix.file_hosts import FileHosts

                kind = FileHosts
            same = self.of(FlakeRef(ref.url)) if isinstance(ref, HomesRef) else None
            self._opened[ref] = kind(ref, self.nix, self.instrumentation, same)
        return self._opened[ref]

    def salted(self, salt: str) -> Flakes:
        """Return the same flakes with other hardware addresses for cards that declare none.

        :param salt: sets the addresses apart, see :class:`Instrumentation`.
        """
        return Flakes(self.nix, replace(self.instrumentation, salt=salt))
