"""Builds generations with Nix on the host machine and exports them for a guest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_nixos.backend_name import BackendName
from pytest_nixos.generations import Delta, OtherFlake, OtherHost
from pytest_nixos.nix.command.log import ProgressSink
from pytest_nixos.nix.command.refs import FlakeRef, HostRef, at_revision
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.flakes import Flakes

__all__ = ["NixBridge", "instantiate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NixBridge:
    """A :class:`pytest_nixos.generations.StoreBridge` over the Nix command line.

    :param gc_roots: directory for the links that keep what is built from the garbage collector.
    :param live: whether the machine is a live host, which gets the host's own toplevel.
    """

    flakes: Flakes
    host: HostConfig
    gc_roots: Path
    on_progress: ProgressSink | None = None
    live: bool = False

    def build_generation(self, source: Delta | OtherHost | OtherFlake) -> Path:
        """Build the toplevel that the machine would run of `source`.

        :raises FlakeError: if there is no such flake, revision or host.
        :raises EvalError: if it does not evaluate.
        :raises BuildError: if it does not build.
        """
        derivation = instantiate(source, flakes=self.flakes, host=self.host, live=self.live)
        root = self.gc_roots / f"generation-{Path(derivation).name[:32]}"
        return self.flakes.nix.build(derivation, gc_root=root, on_progress=self.on_progress)

    def holds(self, path: Path) -> bool:
        """Whether `path` lies in this machine's store."""
        return path.exists()

    def closure(self, path: Path) -> Sequence[Path]:
        """Return the store paths that `path` needs, itself included."""
        return self.flakes.nix.closure(path)

    def registration(self, paths: Sequence[Path]) -> bytes:
        """Return what ``nix-store --load-db`` reads."""
        return self.flakes.nix.dump_database(paths)

    def export(self, paths: Sequence[Path]) -> bytes:
        """Return what ``nix-store --import`` reads."""
        return self.flakes.nix.export(paths)


def instantiate(
    source: Delta | OtherHost | OtherFlake,
    *,
    flakes: Flakes,
    host: HostConfig,
    live: bool = False,
) -> str:
    """Evaluate the generation that a host's machine would run of `source`.

    :param host: whose machine it is.
    :param live: whether the machine is a live host, which gets the host's own toplevel.
    :return: the derivation of its toplevel.
    :raises FlakeError: if there is no such flake, revision or host.
    :raises EvalError: if it does not evaluate.
    """
    wanted = _host_of(source, host.ref)
    return flakes.of(wanted.flake).instantiate_generation(
        wanted.attr,
        backend=BackendName.SSH if live else host.backend,
        delta=source.module if isinstance(source, Delta) else "{ }",
    )


def _host_of(source: Delta | OtherHost | OtherFlake, own: HostRef) -> HostRef:
    if isinstance(source, OtherHost):
        return HostRef(own.flake, source.attr)
    if isinstance(source, OtherFlake):
        flake = FlakeRef.parse(source.url, cwd=Path.cwd()) if source.url else own.flake
        if source.revision:
            flake = at_revision(flake, source.revision)
        return HostRef(flake, source.attr or own.attr)
    return own
