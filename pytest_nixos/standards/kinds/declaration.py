"""Facts that follow from the evaluated config alone; they stand in
:mod:`pytest_nixos.standards.control.config_facts`.
"""

from __future__ import annotations

import datetime as dt

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.standards.control.config_facts import CONFIG_FACTS
from pytest_nixos.standards.control.seen import Sight
from pytest_nixos.standards.kinds.kind import Kind, Parameter, Parameters
from pytest_nixos.standards.sources.told_secrets import secrets_of

__all__ = ["KINDS"]


#: Facts that tell of a secret by the name that it stands beside.
_OF_SECRETS = frozenset({"secret-environment", "inline-secrets"})


def _find(today: dt.date, parameters: Parameters, host: HostConfig) -> Sight:
    return CONFIG_FACTS[str(parameters["fact"])].read(host, today)


KINDS = (
    Kind(
        name="declaration",
        reads="facts that follow from the evaluated config",
        probe=None,
        find=_find,
        parameters={"fact": Parameter(required=True, choices=tuple(CONFIG_FACTS))},
        options=lambda p: CONFIG_FACTS[str(p["fact"])].options,
        blames=lambda p, told: secrets_of(told) if p["fact"] in _OF_SECRETS else (),
    ),
)
