"""The kind about core dumps: where they are stored, if they are."""

from __future__ import annotations

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.core_dump import CoreDumps, core_dumps
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.kinds.kind import Kind, Parameters

__all__ = ["KINDS"]


def _core_dumps(found: CoreDumps | None, _: Parameters, __: HostConfig) -> Sight:
    if found is None:
        return Unseen("the machine did not tell what becomes of core dumps")
    return Seen(list(found.stored))


KINDS = (
    Kind(
        name="core-dumps",
        reads="where core dumps are stored",
        probe=lambda _, __: core_dumps(),
        find=_core_dumps,
    ),
)
