"""Decrypted secrets: what units name is there."""

from __future__ import annotations

import pytest

from pytest_nixos import Evidence, HostConfig, Observations, not_applicable, observe


@pytest.mark.nixos_control("SEC-012")
def test_every_secret_that_a_unit_names_is_there(
    nixos_host_config: HostConfig, nixos_observations: Observations, nixos_evidence: Evidence
) -> None:
    named = {
        name: secrets
        for name, unit in nixos_host_config.units.items()
        if unit.enabled
        and "@." not in name
        and (secrets := observe.secrets_among(unit.needed_paths))
    }
    if not named:
        not_applicable("no unit of the host names the file of a decrypted secret")
    wanted = sorted({path for paths in named.values() for path in paths})
    nixos_evidence.expect(wanted)
    missing = observe.missing_secrets(wanted, nixos_observations)
    lacking = {
        path: sorted(name for name, paths in named.items() if path in paths) for path in missing
    }
    nixos_evidence.observe(lacking)
    if missing:
        down = observe.down_units(nixos_host_config, nixos_observations)
        nixos_evidence.blame("secret", *missing)
        for path in missing:
            nixos_evidence.blame("unit", *(n for n, unit in down.items() if unit.names(path)))
    assert not missing, "not there: " + "; ".join(
        f"{path} (for {', '.join(names)})" for path, names in lacking.items()
    )
