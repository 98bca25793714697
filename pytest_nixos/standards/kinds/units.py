"""Kinds about units: their properties, their exposure, their main processes."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.base import Probe
from pytest_nixos.observe.systemd.process import ProcessFacts, process_facts
from pytest_nixos.observe.systemd.unit import Exposure, UnitState, exposure, shared_units, unit_name
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.control.services import application_services
from pytest_nixos.standards.kinds.kind import (
    NEEDED_TEXTS,
    TEXT,
    TEXTS,
    Kind,
    Parameter,
    Parameters,
)

__all__ = ["KINDS"]

Json = Any
_SERVICES = Parameter(choices=("application",))
_STATE = frozenset({"LoadState", "ActiveState", "SubState"})


def _unit_names(parameters: Parameters, host: HostConfig) -> tuple[str, ...]:
    """Return the units that a control is about; globs stand for declared units."""
    if "services" in parameters:
        return application_services(host)
    given = parameters.get("units", ()) or [parameters["unit"]]
    found: list[str] = []
    for name in (unit_name(str(given_name)) for given_name in given):
        if "*" in name:
            found += sorted(n for n in host.units if fnmatch.fnmatchcase(n, name) and "@." not in n)
        else:
            found.append(name)
    return tuple(dict.fromkeys(found))


def _properties(parameters: Parameters) -> list[str]:
    return list(parameters.get("properties", ())) or [
        str(parameters.get("property", "ActiveState"))
    ]


def _skips_missing(parameters: Parameters) -> bool:
    return parameters.get("missing") == "skip" or "services" in parameters


def _unit_probe(wanted: Sequence[Parameters], host: HostConfig) -> Probe[Any]:
    names: list[str] = []
    light: list[str] = []
    for parameters in wanted:
        # Most of these do not exist on most hosts, which is told sooner than what each would have.
        is_light = _skips_missing(parameters) or _STATE.issuperset(_properties(parameters))
        (light if is_light else names).extend(_unit_names(parameters, host))
    properties = dict.fromkeys(name for p in wanted for name in _properties(p))
    return shared_units(names, light=light, properties=list(properties), name="unit-property")


def _unit_property(
    states: Mapping[str, UnitState], parameters: Parameters, host: HostConfig
) -> Sight:
    names = _unit_names(parameters, host)
    values: dict[str, Json] = {}
    for name in names:
        state = states.get(name)
        if state is None:
            return Unseen(f"systemd gave no answer about {name}")
        if state.exists or not _skips_missing(parameters):
            values[name] = _unit_value(state, parameters)
    if "where" in parameters:
        return Seen([name for name, value in values.items() if value == parameters["where"]])
    return Seen(values.get(names[0]) if "unit" in parameters else values)


def _unit_value(state: UnitState, parameters: Parameters) -> Json:
    if "properties" in parameters:
        return {name: state.get(name) for name in parameters["properties"]}
    return state.get(_properties(parameters)[0])


def _exposure_probe(wanted: Sequence[Parameters], host: HostConfig) -> Probe[Any]:
    names = [n for p in wanted for n in _unit_names(p, host) if n in host.units]
    return exposure(names, name="unit-exposure")


def _unit_exposure(
    found: Mapping[str, Exposure], parameters: Parameters, host: HostConfig
) -> Sight:
    names = [name for name in _unit_names(parameters, host) if name in host.units]
    if not names:
        return Unseen("the host has none of these services", applicable=False)
    if missing := [name for name in names if name not in found]:
        return Unseen(f"systemd gave no exposure of {', '.join(missing)}")
    return Seen({name: found[name].score for name in names})


def _process_probe(wanted: Sequence[Parameters], host: HostConfig) -> Probe[Any]:
    names = [name for p in wanted for name in _unit_names(p, host)]
    variables = [name for p in wanted for name in p.get("variables", ())]
    return process_facts(names, variables=variables, name="process")


def _process(
    found: Mapping[str, ProcessFacts | None], parameters: Parameters, host: HostConfig
) -> Sight:
    names = _unit_names(parameters, host)
    running = {name: process for name in names if (process := found.get(name)) is not None}
    if not running:
        return Unseen("none of these services has a running process")
    match parameters["field"]:
        case "environment":
            first = next(iter(running.values()))
            return Seen({v: first.environment.get(v) for v in parameters.get("variables", ())})
        case "command-line":
            return Seen({name: process.command_line for name, process in running.items()})
        case _:
            return Seen({name: process.oom_score_adj for name, process in running.items()})


KINDS = (
    Kind(
        name="unit-property",
        reads="properties of units (`systemctl show`)",
        probe=_unit_probe,
        find=_unit_property,
        parameters={
            "unit": TEXT,
            "units": TEXTS,
            "services": _SERVICES,
            "property": TEXT,
            "properties": TEXTS,
            "missing": Parameter(choices=("skip", "report")),
            "where": TEXT,
        },
        one_of=("unit", "units", "services"),
    ),
    Kind(
        name="unit-exposure",
        reads="exposure of services (`systemd-analyze security`)",
        probe=_exposure_probe,
        find=_unit_exposure,
        parameters={"units": TEXTS, "services": _SERVICES},
        one_of=("units", "services"),
    ),
    Kind(
        name="process",
        reads="main processes of units: environment variables by name, command line, OOM score",
        probe=_process_probe,
        find=_process,
        parameters={
            "units": NEEDED_TEXTS,
            "field": Parameter(
                required=True, choices=("environment", "command-line", "oom-score-adj")
            ),
            "variables": TEXTS,
        },
    ),
)
