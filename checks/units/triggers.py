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

#: Suffixes of units that start others, with the section that names these.
TRIGGERS = {
    ".timer": "timerConfig.Unit",
    ".socket": "socketConfig.Service",
    ".path": "pathConfig.Unit",
}
_TARGETS = {".timer": "timers.target", ".socket": "sockets.target", ".path": "paths.target"}
_SECTIONS = {".timer": "Timer", ".socket": "Socket", ".path": "Path"}
_ALIKE = 0.7
_SERVICE = ".service"


def _suffix(name: str) -> str:
    return f".{name.rpartition('.')[2]}"


def started_by_nothing(name: str, unit: Unit, state: observe.UnitState) -> bool:
    """Whether a unit that is declared as a whole is loaded, and nothing ever starts it."""
    return (
        bool(unit.settings.get(_SECTIONS.get(_suffix(name), "")))
        and state.get("LoadState") == "loaded"
        and not state.is_running
        and pulled_in_by_nothing(state)
    )


def wanted_by_its_target(name: str) -> str:
    """Return module text that has a unit started at boot."""
    return f'{unit_option(name)}.wantedBy = [ "{_TARGETS[_suffix(name)]}" ];'


def trigger_of_missing(name: str, missing: str, declared: Collection[str]) -> str:
    """Return module text for a unit that starts one which is not there.

    :param declared: the units of the host.
    """
    if missing in declared:
        return f"# {name} starts {missing}, which is declared and not loaded: systemd-analyze verify --man=no {missing}"
    # Suffixes are alike whatever stands before them.
    stems = sorted(other.removesuffix(_SERVICE) for other in declared if other.endswith(_SERVICE))
    wanted = missing.removesuffix(_SERVICE)
    for meant in difflib.get_close_matches(wanted, stems, n=1, cutoff=_ALIKE):
        return f'{unit_option(name)}.{TRIGGERS[_suffix(name)]} = lib.mkForce "{meant}{_SERVICE}";'
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
