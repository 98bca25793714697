"""Module text about one unit: its option, and the line to write instead of one that systemd ignores."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from pytest_nixos import Unit, observe

__all__ = ["instead_of", "unit_option"]

# Option of systemd.* by a unit's suffix; its own section is the capitalised one.
_OPTIONS = {
    "service": "services",
    "socket": "sockets",
    "timer": "timers",
    "path": "paths",
    "slice": "slices",
    "target": "targets",
}
_SECTION = re.compile(r"in section (?:\[(\w+)\]|'(\w+)')")


def instead_of(ignored: observe.IgnoredDirective, unit: Unit, meant: str) -> str:
    """Return the module text that mends one ignored line, as far as it is known.

    :param meant: the directive that was probably meant, or ``""``.
    """
    where = f"# {ignored.unit}, line {ignored.line}: {ignored.text}"
    found = next(_places(ignored, unit), None)
    if found is None:
        return f"{where}\n# systemd.directives(7) lists every name and what it takes."
    section, key, value = found
    if ignored.key and meant:
        line = f"{_option(unit.name, section)}.{meant} = {json.dumps(value)};"
        return f"{where}\n# In place of {key}:\n{line}"
    what = "a name" if ignored.key else "a value"
    return f"{where}\n# {what} that systemd knows, see systemd.directives(7), for\n# {_option(unit.name, section)}.{key}"


def _places(ignored: observe.IgnoredDirective, unit: Unit) -> Iterator[tuple[str, str, str]]:
    """Yield section, key and value of the lines that may be meant: what is told names the key or
    the value.
    """
    said = _SECTION.search(ignored.text)
    told = "" if said is None else said[1] or said[2]
    for section, settings in unit.settings.items():
        for key, values in settings.items():
            value = values[-1]
            by_key = key == ignored.key and told in ("", section)
            by_value = not ignored.key and len(value) > 1 and value in ignored.text
            if by_key or by_value:
                yield section, key, value


def unit_option(name: str) -> str:
    """Return the option that declares a unit, ``systemd.timers."backup"``."""
    stem, _, suffix = name.rpartition(".")
    return f'systemd.{_OPTIONS.get(suffix, f"{suffix}s")}."{stem}"'


def _option(name: str, section: str) -> str:
    return f"{unit_option(name)}.{section.lower()}Config"
