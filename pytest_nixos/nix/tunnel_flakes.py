"""Flakes some of whose hosts are evaluated with test keys for their WireGuard peers."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from pytest_nixos.nix.command.refs import FlakeRef, HostRef
from pytest_nixos.nix.flake import Flake
from pytest_nixos.nix.flakes import Flakes
from pytest_nixos.nix.prepared import NotPrepared, PreparedFlakes

__all__ = ["TunnelFlakes"]


class TunnelFlakes(Flakes):
    """The flakes of a run, where some hosts have other keys.

    :param tables: by host, see ``tunnels`` of
        :class:`pytest_nixos.nix.expression.Instrumentation`.
    :raises NotPrepared: of hosts that were evaluated beforehand.
    """

    def __init__(self, flakes: Flakes, tables: Mapping[HostRef, Mapping[str, object]]) -> None:
        if isinstance(flakes, PreparedFlakes):
            raise NotPrepared(
                "a WireGuard tunnel between members has test keys, which an evaluation gives them",
                remedy="test the hosts with --nixos-flake, on a machine with Nix",
            )
        super().__init__(flakes.nix, flakes.instrumentation)
        self._flakes = flakes
        self._tables = tables

    def of(self, ref: FlakeRef) -> Flake:
        """Return the flake of a ref."""
        if ref not in self._opened:
            known = self._flakes.of(ref)
            tables = {host.attr: table for host, table in self._tables.items() if host.flake == ref}
            made = replace(self.instrumentation, tunnels=tables)
            self._opened[ref] = type(known)(ref, self.nix, made, known)
        return self._opened[ref]
