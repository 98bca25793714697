"""Sandboxing: declared directives are in force, in systemd and on the process, and an escape
fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pytest_nixos import Evidence, HostConfig, Machine, Observations, not_applicable, observe

from .directives import (
    declared_sandboxes,
    hardened_by_the_host,
    mismatches,
    misspelt,
)
from .escape import attempt, forbidden
from .less_exposed import less_exposed
from .process import violations

# Where systemd-analyze's own rating turns from OK to MEDIUM.
_EXPOSURE_LIMIT = 5.0

Sandboxes = dict[str, dict[str, tuple[str, ...]]]


@pytest.fixture(scope="module")
def declared(nixos_host_config: HostConfig) -> Sandboxes:
    """Services that declare sandboxing, by unit and directive."""
    found = declared_sandboxes(nixos_host_config)
    if not found:
        not_applicable("no service declares a sandboxing directive")
    return found


@pytest.mark.nixos_control("SBX-D01")
def test_declared_directives_are_in_force_in_systemd(
    nixos_host_config: HostConfig, nixos_observations: Observations, nixos_evidence: Evidence
) -> None:
    declared = declared_sandboxes(nixos_host_config)
    unknown = {
        unit: directives
        for report in _reports(nixos_host_config, nixos_observations)
        for unit, directives in misspelt(nixos_host_config, report).items()
    }
    if not (declared or unknown):
        not_applicable("no service declares a sandboxing directive")
    states = nixos_observations.of(observe.declared_states(nixos_host_config))
    nixos_evidence.expect({"units": sorted({*declared, *unknown})})
    unloaded = sorted(unit for unit in declared if not states[unit].exists)
    wrong = {
        unit: found
        for unit, directives in declared.items()
        if unit not in unloaded and (found := mismatches(directives, states[unit].properties))
    }
    for unit, directives in unknown.items():
        wrong[unit] = {**wrong.get(unit, {}), **directives}
    nixos_evidence.observe({"not loaded": unloaded, "differing": wrong})
    nixos_evidence.remedy = "\n".join(
        f'# {told}: correct systemd.services."{unit.removesuffix(".service")}".serviceConfig.{directive}'
        for unit, found in wrong.items()
        for directive, told in found.items()
    )
    assert not unloaded, f"declared and not loaded: {unloaded}"
    assert not wrong, "not in force: " + "; ".join(
        f"{unit}: {directive} is {told}"
        for unit, found in wrong.items()
        for directive, told in found.items()
    )


@pytest.mark.nixos_control("SBX-D02")
def test_declared_directives_are_in_force_on_the_process(
    declared: Sandboxes,
    nixos_host_config: HostConfig,
    nixos_observations: Observations,
    nixos_evidence: Evidence,
) -> None:
    facts = nixos_observations.of(observe.process_facts(tuple(declared)))
    running = {unit: found for unit, found in facts.items() if found is not None}
    if not running:
        not_applicable("no service that declares sandboxing has a process now")
    nixos_evidence.expect({"units": sorted(running)})
    wrong = {
        unit: found
        for unit, process in running.items()
        if (
            found := violations(
                declared[unit], process, writable=_writable(nixos_host_config, unit)
            )
        )
    }
    nixos_evidence.observe(wrong)
    assert not wrong, f"the process lives outside of: {wrong}"


@pytest.mark.nixos_control("SBX-D03")
def test_hardened_units_stay_below_the_exposure_threshold(
    declared: Sandboxes,
    nixos_host_config: HostConfig,
    nixos_observations: Observations,
    nixos_evidence: Evidence,
) -> None:
    hardened = hardened_by_the_host(nixos_host_config, declared)
    if not hardened:
        not_applicable(
            "the host hardens no service itself; what nixpkgs' own modules declare is theirs to judge"
        )
    exposures = nixos_observations.of(observe.exposure(hardened))
    assert exposures, "systemd-analyze security judged none of the units"
    nixos_evidence.expect(f"at most {_EXPOSURE_LIMIT}")
    scores = nixos_evidence.observe({unit: e.score for unit, e in sorted(exposures.items())})
    for unit, found in exposures.items():
        if found.score > _EXPOSURE_LIMIT:
            worst = "\n".join(f"{i.weight:.1f} {i.directive}" for i in found.items[:15])
            nixos_evidence.attach(f"what exposes {unit}", worst)
    high = {unit: score for unit, score in scores.items() if score > _EXPOSURE_LIMIT}
    nixos_evidence.remedy = "\n".join(
        less_exposed(nixos_host_config.units[unit], exposures[unit]) for unit in high
    )
    assert not high, f"more exposed than {_EXPOSURE_LIMIT}: {high}"


@pytest.mark.nixos_destructive
@pytest.mark.nixos_control("SBX-D04")
def test_escape_attempt_from_inside_the_sandbox_fails(
    declared: Sandboxes,
    nixos_machine: Machine,
    nixos_observations: Observations,
    nixos_evidence: Evidence,
    nixos_progress: Callable[[str], None],
) -> None:
    states = nixos_observations.of(observe.units(tuple(declared), name="sandboxed-services"))
    tried = [unit for unit in declared if forbidden(declared[unit]) and states[unit].is_running]
    if not tried:
        not_applicable("no running service declares a directive that an attempt could break")
    nixos_evidence.expect({unit: forbidden(declared[unit]) for unit in tried})
    nixos_progress(f"attempting to escape from twins of {', '.join(tried)}")
    found = attempt(nixos_machine, tried)
    not_run = [unit for unit in tried if unit not in found]
    escaped = {
        unit: holes
        for unit, outcomes in found.items()
        if (holes := [name for name in forbidden(declared[unit]) if outcomes[name]])
    }
    nixos_evidence.observe({"succeeded": escaped, "twin did not run": not_run})
    assert len(not_run) < len(tried), f"no twin ran, so nothing was tried: {not_run}"
    assert not escaped, f"succeeded although forbidden: {escaped}"


def _reports(host: HostConfig, observations: Observations) -> Iterator[observe.UnitFileReport]:
    """Give what systemd says of all files of services: those that the suite of units has verified too, and
    those that it leaves out.
    """
    yield observations.of(observe.declared_files(host))
    verified = {*observe.declared_units(host), *observe.declared_templates(host)}
    rest = [name for name in host.units if name.endswith(".service") and name not in verified]
    if rest:
        yield observations.of(observe.verify_units(sorted(rest)))


def _writable(host: HostConfig, unit: str) -> tuple[str, ...]:
    """Paths that the unit declares writable, for which ProtectSystem= makes an exception."""
    given = host.units[unit].setting("Service", "ReadWritePaths")
    return tuple(path.lstrip("-+") for value in given for path in value.split())
