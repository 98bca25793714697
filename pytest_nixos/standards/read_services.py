"""Readers of services: unit properties, exposure, processes, HTTP answers."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_nixos.nix.host_facts import HostConfig
from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.exposure import Exposure, exposure
from pytest_nixos.observe.http import HttpAnswer, HttpRequest, http
from pytest_nixos.observe.runtime import UnitProcess, unit_processes
from pytest_nixos.observe.unit import UnitState, unit_name, units
from pytest_nixos.standards.config_facts import application_services
from pytest_nixos.standards.declaration import select
from pytest_nixos.standards.sight import Reader, Seen, Sight, Unseen
from pytest_nixos.standards.templates import filled

__all__ = ["SERVICE_READERS"]

Json = Any
Parameters = Mapping[str, Json]


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


def _unit_probe(wanted: Sequence[Parameters], host: HostConfig) -> Probe[Any]:
    names = [name for p in wanted for name in _unit_names(p, host)]
    properties = [name for p in wanted for name in _properties(p)]
    return units(names, properties=list(dict.fromkeys(properties)), name="unit-property")


def _unit_property(
    states: Mapping[str, UnitState], parameters: Parameters, host: HostConfig
) -> Sight:
    names = _unit_names(parameters, host)
    skip_missing = parameters.get("missing") == "skip" or "services" in parameters
    values: dict[str, Json] = {}
    for name in names:
        state = states.get(name)
        if state is None:
            return Unseen(f"systemd gave no answer about {name}")
        if state.exists or not skip_missing:
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
    return unit_processes(names, variables=variables)


def _process(found: Mapping[str, UnitProcess], parameters: Parameters, host: HostConfig) -> Sight:
    names = [name for name in _unit_names(parameters, host) if name in found]
    if not names:
        return Unseen("none of these services has a running process")
    match parameters["field"]:
        case "environment":
            wanted = parameters.get("variables", ())
            return Seen({v: found[names[0]].environment.get(v) for v in wanted})
        case "command-line":
            return Seen({name: found[name].command_line for name in names})
        case _:
            return Seen({name: found[name].oom_score_adj for name in names})


def _http_probe(wanted: Sequence[Parameters], host: HostConfig) -> Probe[Any]:
    urls = [filled(str(p["url"]), host) for p in wanted]
    known = list(dict.fromkeys(str(url.value) for url in urls if isinstance(url, Seen)))
    probe = http([HttpRequest(url=url) for url in known], name="catalogue-http")

    def parse(output: ProbeOutput) -> Mapping[str, HttpAnswer]:
        return dict(zip(known, probe.parse(output), strict=False)) if known else {}

    return Probe(name=probe.name, script=probe.script if known else ":", parse=parse)


def _http(answers: Mapping[str, HttpAnswer], parameters: Parameters, host: HostConfig) -> Sight:
    url = filled(str(parameters["url"]), host)
    if isinstance(url, Unseen):
        return url
    answer = answers.get(str(url.value))
    if answer is None or answer.status is None:
        why = "it was not asked" if answer is None else answer.failure
        return Unseen(f"{url.value} gave no answer: {why}")
    match parameters.get("field", "status"):
        case "status":
            return Seen(answer.status)
        case "headers":
            return Seen(select(dict(answer.headers), tuple(parameters.get("select", ()))))
        case "body":
            return Seen(answer.text)
        case _:
            return _http_json(answer, parameters, str(url.value))


def _http_json(answer: HttpAnswer, parameters: Parameters, url: str) -> Sight:
    if not answer.succeeded:
        return Unseen(f"{url} answered with status {answer.status}")
    try:
        document = json.loads(answer.body)
    except ValueError:
        return Unseen(f"{url} answered with something that is not JSON")
    return Seen(select(document, tuple(parameters.get("select", ()))))


SERVICE_READERS: Mapping[str, Reader] = {
    "unit-property": Reader(probe=_unit_probe, pick=_unit_property),
    "unit-exposure": Reader(probe=_exposure_probe, pick=_unit_exposure),
    "process": Reader(probe=_process_probe, pick=_process),
    "http": Reader(probe=_http_probe, pick=_http),
}
