"""Units that start others: what they would start, and what mends one that starts nothing."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

from pytest_nixos import Unit, observe

from .declared import missing_program, pulled_in_by_nothing
from .idle import requires_missing, requiring_remedy
from .remedies import unit_option

__all__ = [
    "TRIGGERS",
    "cannot_start",
    "started_by_nothing",
    "trigger_of_missing",
    "wanted_by_its_target",
]

#: Suffixes of units that start others, with the target that starts these at boot.
TRIGGERS = {".timer": "timers.target", ".socket": "sockets.target", ".path": "paths.target"}
_ALIKE = 0.7
_SERVICE = ".service"


def _suffix(name: str) -> str:
    return f".{name.rpartition('.')[2]}"


def started_by_nothing(unit: Unit, state: observe.UnitState) -> bool:
    """Whether a unit that is declared as a whole is loaded, and nothing ever starts it."""
    return (
        unit.starting is not None
        and bool(unit.settings.get(unit.starting[0]))
        and state.get("LoadState") == "loaded"
        and not state.is_running
        and pulled_in_by_nothing(state)
    )


def wanted_by_its_target(name: str) -> str:
    """Return module text that has a unit started at boot."""
    return f'{unit_option(name)}.wantedBy = [ "{TRIGGERS[_suffix(name)]}" ];'


def trigger_of_missing(unit: Unit, missing: str, declared: Collection[str]) -> str:
    """Return module text for a unit that starts one which is not there.

    :param unit: a timer, socket or path.
    :param declared: the units of the host.
    """
    name = unit.name
    if missing in declared:
        return f"# {name} starts {missing}, which is declared and not loaded: systemd-analyze verify --man=no {missing}"
    # Suffixes are alike whatever stands before them.
    stems = sorted(other.removesuffix(_SERVICE) for other in declared if other.endswith(_SERVICE))
    wanted = missing.removesuffix(_SERVICE)
    meant = difflib.get_close_matches(wanted, stems, n=1, cutoff=_ALIKE)
    if meant and unit.starting is not None:
        section, key = unit.starting
        path = f"{unit_option(name)}.{section.lower()}Config.{key}"
        return f'{path} = lib.mkForce "{meant[0]}{_SERVICE}";'
    return f"# {name} starts {missing}: declare it, {unit_option(missing)}, or take {unit_option(name)} away."


def cannot_start(
    unit: str,
    declared: Mapping[str, Unit],
    report: observe.UnitFileReport,
    unmet: Mapping[str, observe.UnitFailure],
) -> tuple[str, str]:
    """Return why a unit could not start that has not run yet, and what mends it; two empty texts if
    nothing is known against it.

    :param report: what systemd says of the unit files.
    :param unmet: unit to what it lacks, by :func:`pytest_nixos.observe.unmet_needs`.
    """
    if lack := missing_program(unit, report):
        return lack, _with_program(unit)
    said = report.of(unit)
    if unit in declared and (lack := requires_missing(declared, said)):
        look = f"# {unit}: declare what it requires, or take that away: systemctl list-dependencies {unit}"
        return lack, requiring_remedy(unit, declared, said) or look
    if unit in unmet:
        return unmet[unit].why, unmet[unit].remedy
    return "", ""


def _with_program(unit: str) -> str:
    """Return what mends a unit whose program is not there."""
    return (
        f"# {unit}: write its program by its package, as in\n"
        f'#   {unit_option(unit)}.serviceConfig.ExecStart = "${{pkgs.hello}}/bin/hello";'
    )
