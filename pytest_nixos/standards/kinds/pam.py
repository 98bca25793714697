"""The kind about PAM: each service's stack, since what one asks for says nothing of another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.accounts.pam import PamService, pam
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.kinds.kind import TEXTS, Kind, Parameter, Parameters

__all__ = ["KINDS"]

Json = Any

_FIELDS: Mapping[str, Callable[[PamService], Json]] = {
    "nullok": lambda service: service.accepts_nothing,
    "faillock": lambda service: dict(service.faillock),
    "delay": lambda service: service.delay_s,
    "password-quality": lambda service: dict(service.password_quality),
    "wheel": lambda service: service.wants_wheel,
}
#: Asked of every service that has such a line; the others of those where a password is guessed.
_OF_ALL = frozenset({"nullok"})


def _pam(found: Mapping[str, PamService] | None, parameters: Parameters, _: HostConfig) -> Sight:
    if found is None:
        return Unseen("the machine gave no answer about its PAM services")
    field = str(parameters["field"])
    wanted = parameters.get("services")
    services = [
        service
        for service in found.values()
        if (service.name in wanted if wanted else field in _OF_ALL or service.asks_strangers)
    ]
    if not services:
        return Unseen("no PAM service of the machine asks for a password", applicable=False)
    return Seen({f"/etc/pam.d/{service.name}": _FIELDS[field](service) for service in services})


KINDS = (
    Kind(
        name="pam",
        reads="what each PAM service makes of a password, with what it includes",
        probe=lambda _, __: pam(),
        find=_pam,
        parameters={
            "field": Parameter(required=True, choices=tuple(_FIELDS)),
            "services": TEXTS,
        },
    ),
)
