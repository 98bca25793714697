"""The kind about doas: what each account may really do, not only what wheel may."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.accounts.doas import doas_rights
from pytest_nixos.observe.accounts.permission import (
    AccountRights,
    root_outside_wheel,
    without_password,
)
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.kinds.kind import Kind, Parameter, Parameters

__all__ = ["KINDS"]

_FACTS: Mapping[str, Callable[[Sequence[AccountRights]], list[str]]] = {
    "without-password": without_password,
    "root-outside-wheel": root_outside_wheel,
}


def _doas(
    found: Sequence[AccountRights] | str | None, parameters: Parameters, _: HostConfig
) -> Sight:
    if found is None:
        return Unseen("what the rules of doas mean could not be read")
    if isinstance(found, str):
        return Unseen(found, applicable=False)
    return Seen(_FACTS[str(parameters["fact"])](found))


KINDS = (
    Kind(
        name="doas",
        reads="what each account may do with doas, by the last rule that matches",
        probe=lambda _, __: doas_rights(),
        find=_doas,
        parameters={"fact": Parameter(required=True, choices=tuple(_FACTS))},
    ),
)
