"""Every sysctl that the host declares is in force."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pytest_nixos import Evidence, HostConfig, Observations, not_applicable, observe

from .namespaced import of_a_container
from .reasons import Reason, same_setting, why_missing, why_other

_ROOT = "/proc/sys/"
_SYSCTL_UNIT = "systemd-sysctl.service"


@pytest.mark.nixos_control("SYS-001")
def test_declared_sysctls_are_in_force(
    nixos_host_config: HostConfig,
    nixos_place: str,
    nixos_observations: Observations,
    nixos_evidence: Evidence,
) -> None:
    declared = _judgeable(same_setting(nixos_host_config.sysctls), nixos_place)
    if not declared:
        not_applicable("the host declares no sysctl that can be judged here")
    observed = nixos_observations.of(observe.sysctls(tuple(declared)))
    # A glob stands for the keys that this machine has.
    declared = nixos_evidence.expect(dict(observe.applied_sysctls(declared, observed)))
    if not declared:
        not_applicable("no key of this machine is meant by what the host declares")
    nixos_evidence.observe(observed)
    wrong = [key for key, value in declared.items() if not _is_so(value, observed[key])]
    reasons = _reasons(wrong, declared, observed, nixos_host_config, nixos_observations)
    wrong = list(reasons)
    nixos_evidence.remedy = "\n".join(dict.fromkeys(reason.remedy for reason in reasons.values()))
    told = [
        f"{key}: declared {declared[key]}, is {'missing' if observed[key] is None else observed[key]}"
        + (f" ({reason.words})" if reason.words else "")
        for key, reason in reasons.items()
    ]
    assert not wrong, "; ".join(told)


def _is_so(declared: str, observed: str | None) -> bool:
    return observe.same_sysctl(declared, observed)


def _reasons(
    wrong: list[str],
    declared: Mapping[str, str],
    observed: Mapping[str, str | None],
    host: HostConfig,
    observations: Observations,
) -> Mapping[str, Reason]:
    """Return why each wrong key is so; nothing is asked where none is.

    A key that a file names by itself is no business of a glob, sysctl.d(5), and is left out.
    """
    if not wrong:
        return {}
    sources = observations.of(observe.sysctl_sources(wrong))
    refused = observe.refused_sysctls(observations.of(observe.journal(_SYSCTL_UNIT)))
    failed = _SYSCTL_UNIT in (observations.of(observe.failed_units()) or ())
    return {
        key: why_missing(key, declared[key], sources.gaps.get(key))
        if observed[key] is None
        else why_other(key, host=host, sources=sources, refused=refused, failed=failed)
        for key in wrong
        if key in host.sysctls or _path(key) not in sources.by_name
    }


def _judgeable(sysctls: Mapping[str, str], place: str) -> dict[str, str]:
    if place != "container":
        return dict(sysctls)
    return of_a_container(sysctls, {key: _path(key) for key in sysctls})


def _path(key: str) -> str:
    return observe.sysctl_path(key.removeprefix("-")).removeprefix(_ROOT)
