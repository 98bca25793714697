"""Which units a data control rests on: where one of them has failed, the control says nothing of
its own subject.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pytest_nixos.backend_name import BackendName
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.systemd.unit import askable_units
from pytest_nixos.standards.control.model import Control
from pytest_nixos.standards.judging.applicability import inapplicable
from pytest_nixos.subject import Subject, SubjectKind

__all__ = ["foreseen_units", "rests_on_units"]

# An option in the template of a URL or a port: {services.ollama.port|11434}.
_SERVICE = re.compile(r"\{services\.(?:prometheus\.exporters\.([a-z0-9-]+)|([a-z][a-z0-9-]*))\.")
# What systemd tells of a unit that only one that runs, or has run well, shows right.
_OF_THE_LIVING = frozenset({"ActiveState", "SubState", "Result", "ExecMainStatus", "MainPID"})


def rests_on_units(control: Control) -> tuple[Subject, ...]:
    """Return the units that have to run for a data control to be judged.

    A process is asked in the unit that is named, and a URL of the catalogue names the service whose
    address it takes from the host's config. A unit's own settings are there whether or not it runs,
    so that they rest on nothing.
    """
    spec = control.observed
    if spec is None or not control.is_data:
        return ()
    match spec.kind:
        case "process":
            return _units(spec.parameters.get("units", ()))
        case "http" | "socket":
            template = str(spec.parameters.get("url", spec.parameters.get("port", "")))
            return _units(
                dict.fromkeys(
                    # nixos/modules/services/monitoring/prometheus/exporters.nix
                    f"prometheus-{exporter}-exporter.service" if exporter else f"{service}.service"
                    for exporter, service in _SERVICE.findall(template)
                )
            )
        case "audit":
            # Without the daemon and its tools nothing is told of any rule; a control that blames it
            # is the cause.
            return () if control.blames else _units(["auditd.service"])
        case "unit-property":
            asked = {*spec.parameters.get("properties", ()), spec.parameters.get("property")}
            named = [*spec.parameters.get("units", ()), spec.parameters.get("unit")]
            return _units(n for n in named if n) if asked & _OF_THE_LIVING else ()
        case _:
            return ()


def foreseen_units(
    controls: Iterable[Control], host: HostConfig, place: BackendName
) -> tuple[str, ...]:
    """Return the units, with suffix, that findings of data controls on this host may rest on or blame."""
    subjects = (
        subject
        for control in controls
        if control.is_data and inapplicable(control, host, place) is None
        for subject in (*rests_on_units(control), *control.blames)
    )
    return tuple(askable_units(s.name for s in subjects if s.kind is SubjectKind.UNIT))


def _units(names: Iterable[str]) -> tuple[Subject, ...]:
    return tuple(Subject(SubjectKind.UNIT, name) for name in names)
