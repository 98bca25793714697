"""Every sysctl that the host declares is in force."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import starmap

import pytest

from pytest_nixos import Evidence, HostConfig, Observations, not_applicable, observe

from .overwritten import writers_of

_NAMESPACED = ("net.",)


@pytest.mark.nixos_control("SYS-001")
def test_declared_sysctls_are_in_force(
    nixos_host_config: HostConfig,
    nixos_place: str,
    nixos_observations: Observations,
    nixos_evidence: Evidence,
) -> None:
    declared = _judgeable(nixos_host_config.sysctls, nixos_place)
    if not declared:
        not_applicable("the host declares no sysctl that can be judged here")
    observed = nixos_observations.of(observe.sysctls(tuple(declared)))
    # A glob stands for the keys that this machine has.
    declared = nixos_evidence.expect(dict(observe.applied_sysctls(declared, observed)))
    if not declared:
        not_applicable("no key of this machine is meant by what the host declares")
    nixos_evidence.observe(observed)
    wrong = {
        key: f"declared {value}, is {'missing' if seen is None else seen}"
        for key, value in declared.items()
        if not observe.same_sysctl(value, seen := observed[key])
    }
    overwritten = {
        key: writers_of(key, nixos_host_config) for key in wrong if observed[key] is not None
    }
    for key, units in overwritten.items():
        if units:
            wrong[key] += f" (written by {', '.join(units)})"
    if len(overwritten) == len(wrong):
        nixos_evidence.remedy = "\n".join(starmap(_undo, overwritten.items()))
    assert not wrong, "; ".join(f"{key}: {how}" for key, how in wrong.items())


def _undo(key: str, units: tuple[str, ...]) -> str:
    if not units:
        return (
            f"# Something gives {key} another value after systemd-sysctl.service has set it:"
            " a file of /etc/sysctl.d that sorts after 60-nixos.conf, or a program."
        )
    return f'# {", ".join(units)} writes {key}: take that out of its script, or correct\n# boot.kernel.sysctl."{key}"'


def _judgeable(sysctls: Mapping[str, str], place: str) -> dict[str, str]:
    """Keep what the machine's own kernel namespace can show: a container has net.* of its own
    only.
    """
    if place != "container":
        return dict(sysctls)
    return {key: value for key, value in sysctls.items() if key.lstrip("-").startswith(_NAMESPACED)}
