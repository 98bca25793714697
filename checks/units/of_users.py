"""Units of users: what is wrong with each, in words, and what mends it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

from pytest_nixos import observe

from .idle import OF_SYSTEMD
from .remedies import unit_option
from .values import right_value

__all__ = ["own_managers", "remedy_of_user_units", "wanted_by_none"]

# Of a user's manager, systemd.special(7).
_OF_USERS = (
    *("default.target", "basic.target", "graphical-session.target", "graphical-session-pre.target"),
    *("timers.target", "sockets.target", "paths.target", "xdg-desktop-autostart.target"),
)
_CALENDAR = re.compile(r"calendar specification, ignoring: (?P<value>.+)$")


def own_managers(users: observe.UserUnits, place: str) -> Sequence[str]:
    """Return the users whose managers run of the host's own accord, which UNIT-009 judges.

    Who logs in to a machine of the run is the run, at whatever moment; UNIT-014 judges what such a
    login starts.

    :param place: where the machine runs, ``bare-metal`` for a live host.
    """
    return users.managers if place == "bare-metal" else users.of_the_boot


def wanted_by_none(users: observe.UserUnits) -> Mapping[str, str]:
    """Return the units that a login never starts, since the target that wants them is one of the
    system's manager or misspelt, with the target that is meant.
    """
    found = {}
    for unit, targets in users.absent.items():
        meant = [_meant(target) for target in targets]
        if all(meant):
            found[unit] = meant[0]
    return found


def remedy_of_user_units(users: observe.UserUnits) -> str:
    """Return module text, or what to do, for all that is wrong."""
    lines = []
    for unit, meant in wanted_by_none(users).items():
        lines.append(f'{_option(unit)}.wantedBy = lib.mkForce [ "{meant}" ];')
    for found in users.report.ignored:
        lines.append(f"# {found.unit}, line {found.line}: {found.text}")
        calendar = _CALENDAR.search(found.text)
        right = right_value("OnCalendar", calendar["value"]) if calendar else ""
        if right:
            lines.append(f'{_option(found.unit)}.timerConfig.OnCalendar = lib.mkForce "{right}";')
        else:
            lines.append(
                f"# Correct {_option(found.unit)}; systemd.directives(7) lists every name."
            )
    told = {found.unit for found in users.report.ignored}
    lines += [
        f"# Why {unit} is refused: systemd-analyze --user verify {unit}"
        for unit in users.report.refused
        if unit not in told
    ]
    lines += [
        f"# Take one order away: {_option(cycle.unit)}.after or .before {cycle.at}"
        for cycle in users.report.cycles
    ]
    lines += [f"# As {user}: journalctl --user --unit={unit}" for user, unit in users.failed]
    if users.dangling:
        lines.append(
            "# Links that lead nowhere are left by a generation that is gone: activate home-manager again."
        )
    return "\n".join(dict.fromkeys(lines))


def _meant(target: str) -> str:
    if target in _OF_USERS:
        return ""
    if target in OF_SYSTEMD:
        return "default.target"
    return next(iter(difflib.get_close_matches(target, _OF_USERS, n=1, cutoff=0.85)), "")


def _option(unit: str) -> str:
    return unit_option(unit).replace("systemd.", "systemd.user.", 1)
