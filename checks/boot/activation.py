"""The activation of a boot: what is down for want of a snippet that failed, and why none is told."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pytest_nixos import Evidence, HostConfig, Observations, observe

__all__ = ["blame_the_activation", "why_untold"]

# Snippets of sops-nix (setupSecrets), agenix (agenixInstall) and those that are called like them.
_OF_SECRETS = re.compile(r"[sS]ecret|[sS]ops|\bage|[vV]ault|[kK]eys?\b")


def why_untold(host: HostConfig, place: str) -> str:
    """Return why a machine without a log of its activation cannot be judged.

    With ``system.nixos-init.enable`` (nixos/modules/system/activation/nixos-init.nix) a program of
    stage 1 starts the system and runs none of ``system.activationScripts``; its first error keeps the
    system from starting. A container has no stage 1.

    :param place: where the machine runs, ``container`` among others.
    """
    if place != "container" and host.option("system.nixos-init.enable").value is True:
        return "nixos-init starts the system, and it runs no activation snippet"
    return "unknown: the machine keeps no log of its activation"


def blame_the_activation(
    failures: Mapping[str, observe.ActivationFailure],
    host: HostConfig,
    observations: Observations,
    evidence: Evidence,
) -> None:
    """Blame the snippets, the secrets that they left out, and what is down for want of either."""
    evidence.blame("activation", *failures)
    down = observe.down_units(host, observations)
    named = {path for unit in down.values() for path in unit.secrets}
    named |= {secret.path for secret in (*host.secrets.secrets, *host.secrets.templates)}
    said = "\n".join(line for failure in failures.values() for line in failure.said)
    makes_secrets = any(_OF_SECRETS.search(name) for name in failures)
    missing = observe.missing_secrets(named, observations)
    secrets = [path for path in missing if makes_secrets or path in said]
    evidence.blame("secret", *secrets)
    resting = [
        name
        for name, unit in down.items()
        if unit.secrets & set(secrets)
        or (unit.lacks_its_account and {"users", "groups"} & failures.keys())
        # What a snippet could not make or reach, it names.
        or any(path.count("/") > 1 and path in said for path in unit.needs)
    ]
    evidence.blame("unit", *resting)
