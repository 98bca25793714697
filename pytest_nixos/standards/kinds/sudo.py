"""The kind about sudo: what each account may really do, not only what wheel may."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.accounts.permission import root_outside_wheel, without_password
from pytest_nixos.observe.accounts.sudo import SudoRights, sudo_rights
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.kinds.kind import Kind, Parameter, Parameters

__all__ = ["KINDS"]

Json = Any
_FACTS: Mapping[str, Callable[[Sequence[SudoRights]], Json]] = {
    "without-password": without_password,
    "remembers-minutes": lambda rights: {r.account: r.remembers_min for r in rights},
    "root-outside-wheel": root_outside_wheel,
    "replaceable": lambda rights: [
        f"{r.account} may run {what}" for r in rights for what in r.replaceable
    ],
}


def _sudo(found: Sequence[SudoRights] | str | None, parameters: Parameters, _: HostConfig) -> Sight:
    if found is None:
        return Unseen("what sudo's rules mean could not be read")
    if isinstance(found, str):
        return Unseen(found, applicable=False)
    fact = str(parameters["fact"])
    value = _FACTS[fact](found)
    unclear = [f"{r.account}: {what}" for r in found for what in r.unclear]
    if fact == "replaceable" and unclear and not value:
        return Unseen(f"which programs a regular expression means is not known: {unclear[0]}")
    return Seen(value)


KINDS = (
    Kind(
        name="sudo",
        reads="what each account may do with sudo, as sudo itself reads its rules",
        probe=lambda _, __: sudo_rights(),
        find=_sudo,
        parameters={"fact": Parameter(required=True, choices=tuple(_FACTS))},
    ),
)
