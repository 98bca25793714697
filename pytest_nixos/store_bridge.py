"""Builds generations with Nix on the host machine and exports them for a guest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_nixos.host_config import HostConfig
from pytest_nixos.nix import Nix
from pytest_nixos.nix_log import ProgressSink

__all__ = ["NixBridge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NixBridge:
    """A :class:`pytest_nixos.generations.StoreBridge` over the Nix command line.

    :param gc_roots: directory for the links that keep what is built from the garbage collector.
    """

    nix: Nix
    host: HostConfig
    gc_roots: Path
    on_progress: ProgressSink | None = None

    def build_generation(self, delta: str) -> Path:
        """Build the machine's toplevel with the module text `delta`.

        :raises EvalError: if the delta does not evaluate.
        :raises BuildError: if it does not build.
        """
        derivation = self.nix.instantiate_generation(
            self.host.ref, backend=self.host.backend, delta=delta
        )
        root = self.gc_roots / f"generation-{Path(derivation).name[:32]}"
        return self.nix.build(derivation, gc_root=root, on_progress=self.on_progress)

    def closure(self, path: Path) -> Sequence[Path]:
        """Return the store paths that `path` needs, itself included."""
        return self.nix.closure(path)

    def registration(self, paths: Sequence[Path]) -> bytes:
        """Return what ``nix-store --load-db`` reads."""
        return self.nix.dump_database(paths)

    def export(self, paths: Sequence[Path]) -> bytes:
        """Return what ``nix-store --import`` reads."""
        return self.nix.export(paths)
