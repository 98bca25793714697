"""Module text about one unit: its option, and the line to write instead of one that systemd ignores."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from pytest_nixos import Unit, observe

from .values import right_value

__all__ = ["LISTS", "elapsing", "instead_of", "once", "unit_option", "unrefused"]

# Option of systemd.* by a unit's suffix; its own section is the capitalised one.
_OPTIONS = {
    "service": "services",
    "socket": "sockets",
    "timer": "timers",
    "path": "paths",
    "slice": "slices",
    "target": "targets",
}
#: Of any unit, systemd.unit(5), and the options of nixpkgs that write those that take a list
#: (nixos/lib/systemd-unit-options.nix).
LISTS = {
    "After": "after",
    "Before": "before",
    "BindsTo": "bindsTo",
    "Conflicts": "conflicts",
    "OnFailure": "onFailure",
    "OnSuccess": "onSuccess",
    "PartOf": "partOf",
    "Requires": "requires",
    "Requisite": "requisite",
    "Upholds": "upholds",
    "Wants": "wants",
    "Alias": "aliases",
    "RequiredBy": "requiredBy",
    "UpheldBy": "upheldBy",
    "WantedBy": "wantedBy",
}
_OF_INSTALL = frozenset({"Alias", "Also", "DefaultInstance", "RequiredBy", "UpheldBy", "WantedBy"})
_OF_UNIT = re.compile(
    r"(?:Condition|Assert)[A-Z]\w+|StartLimit(?:IntervalSec|Burst|Action)|(?:Failure|Success)Action(?:ExitStatus)?"
    r"|JobTimeout(?:Sec|Action)|JobRunningTimeoutSec|RequiresMountsFor|WantsMountsFor|DefaultDependencies"
    r"|RefuseManual(?:Start|Stop)|StopWhenUnneeded|AllowIsolate|CollectMode|JoinsNamespaceOf|PropagatesStopTo"
    r"|StopPropagatedFrom|PropagatesReloadTo|ReloadPropagatedFrom|IgnoreOnIsolate|Description|Documentation"
)
# What systemd says of a unit that it refuses (src/core/service.c, timer.c, socket.c), and what mends it.
_REFUSALS = {
    "Service has Restart= set to either always or on-success": '{config}.Restart = lib.mkForce "on-failure";',
    "Service has more than one ExecStart= setting": "# Of its lines of ExecStart one may stay; an empty one takes those above away:\n"
    '#   {config}.ExecStart = lib.mkForce [ "" "the one that counts" ];',
    "Service has no ExecStart=": "# Say what it starts: {option}.script, or {config}.ExecStart",
    "Service is of type D-Bus but no D-Bus service name": "# Say the name that it takes: {config}.BusName",
    "Timer unit lacks value setting": '# When it elapses; systemd-analyze calendar "daily" tries an expression:\n'
    '{option}.timerConfig.OnCalendar = lib.mkForce "daily";',
}
_PREFIX_OF_SLICES = "no slice may be named so: it stands for all slices that begin so, as a drop-in; its settings are nowhere in force"
_SECTION = re.compile(r"in section (?:\[(\w+)\]|'(\w+)')")


def instead_of(
    ignored: observe.IgnoredDirective, unit: Unit, meant: str, units: Iterable[str] = ()
) -> str:
    """Return the module text that mends one ignored line, as far as it is known.

    :param meant: the directive that was probably meant, or ``""``.
    :param units: names of the host's units, which a line may misspell.
    """
    where = f"# {ignored.unit}, line {ignored.line}: {ignored.text}"
    places = list(_places(ignored, unit))
    places = [place for place in places if f" {place[1]}=" in f" {ignored.text}"] or places
    if not places:
        return f"{where}\n# systemd.directives(7) lists every name and what it takes."
    section, key, value = places[0]
    if not ignored.key and (right := _with_right_values(unit.name, places, units)):
        return f"{where}\n{right}"
    if ignored.key and (right := _right_section(key, section)):
        line = _in_section(unit.name, right, key, value)
        return f"{where}\n# {key} belongs to [{right}]; in place of {_option(unit.name, section)}.{key}:\n{line}"
    if ignored.key and meant:
        line = f"{_option(unit.name, section)}.{meant} = {json.dumps(value)};"
        return f"{where}\n# In place of {key}:\n{line}"
    what = "a name" if ignored.key else "a value"
    return f"{where}\n# {what} that systemd knows, see systemd.directives(7), for\n# {_option(unit.name, section)}.{key}"


def once(texts: Iterable[str]) -> str:
    """Join remedies; what two of them set is set once, since Nix takes no second definition."""
    lines = [line for text in texts for line in text.split("\n")]
    set_before: set[str] = set()
    kept = []
    for line in lines:
        if line.startswith("#") or line not in set_before:
            kept.append(line)
        set_before.add(line)
    return "\n".join(kept)


def elapsing(name: str, unit: Unit, report: observe.UnitFileReport) -> str:
    """Return the module text that has a timer elapse which has no next time.

    :param report: what systemd says of the unit files.
    """
    ignored = [found for found in report.ignored if found.unit == name]
    if ignored:
        return "\n".join(instead_of(found, unit, "") for found in ignored)
    option = f"{unit_option(name)}.timerConfig"
    for key in ("OnUnitActiveSec", "OnUnitInactiveSec"):
        if (every := unit.setting("Timer", key)[-1:]) and not unit.setting("Timer", "OnCalendar"):
            return (
                f"# {key}= counts from a run of what it starts, and nothing starts that a first time:\n"
                f"{option}.OnBootSec = {json.dumps(every[0])};"
            )
    dates = unit.setting("Timer", "OnCalendar")
    why = f"# {', '.join(dates)} never comes; " if dates else "# "
    return (
        f'{why}systemd-analyze calendar "daily" tries an expression:\n'
        f'{option}.OnCalendar = lib.mkForce "daily";'
    )


def _with_right_values(
    name: str, places: Iterable[tuple[str, str, str]], units: Iterable[str]
) -> str:
    """Return module text with the values that were meant, ``""`` if one is not known."""
    lines = []
    known = list(units)
    for section, key, value in places:
        if key == "Environment":
            variable, _, words = value.partition("=")
            if " " not in words or '"' in value or not variable.isidentifier():
                return ""
            lines.append(
                f"# In place of serviceConfig.Environment, which parts words at blanks:\n{unit_option(name)}.environment.{variable} = {json.dumps(words)};"
            )
        elif not (right := right_value(key, value, known)):
            return ""
        elif option := LISTS.get(key):
            names = " ".join(json.dumps(word) for word in right.split())
            lines.append(f"{unit_option(name)}.{option} = lib.mkForce [ {names} ];")
        else:
            lines.append(f"{_option(name, section)}.{key} = lib.mkForce {json.dumps(right)};")
    return "\n".join(lines)


def _right_section(key: str, written_in: str) -> str:
    """Return the section that a directive belongs to where it was written into another one, ``""``
    otherwise.
    """
    if key in _OF_INSTALL:
        right = "Install"
    elif key in LISTS or _OF_UNIT.fullmatch(key):
        right = "Unit"
    else:
        return ""
    return "" if right == written_in else right


def unrefused(name: str, said: Iterable[str]) -> tuple[str, str]:
    """Return why systemd refuses a unit, in its own words (``""`` where it has none), and module
    text that mends it, or where to read on.

    :param said: what systemd says of the unit.
    """
    texts = [text for text in said if not text.startswith("Unit ")]
    for text in texts:
        for start, remedy in _REFUSALS.items():
            if text.startswith(start):
                option = unit_option(name)
                return text, remedy.format(option=option, config=f"{option}.serviceConfig")
    if name.endswith("-.slice"):
        option = unit_option(name)
        return _PREFIX_OF_SLICES, f'{option}.overrideStrategy = lib.mkForce "asDropin";'
    refusing = [text for text in texts if "efusing" in text]
    look = f"# {name}: see what systemd says of it, systemd-analyze verify --man=no {name}"
    return next(iter(refusing), ""), look


def _in_section(name: str, section: str, key: str, value: str) -> str:
    if option := LISTS.get(key):
        words = " ".join(json.dumps(word) for word in value.split())
        return f"{unit_option(name)}.{option} = [ {words} ];"
    if section == "Unit":
        return f"{unit_option(name)}.unitConfig.{key} = {json.dumps(value)};"
    return f"# [{section}] {key}={value}"


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
            # Of a list of words systemd names the one that it refuses.
            by_value = (
                not ignored.key
                and len(value) > 1
                and (
                    value in ignored.text
                    or any(_is_named(word, ignored.text) for word in value.split())
                )
            )
            if by_key or by_value:
                yield section, key, value


def _is_named(word: str, said: str) -> bool:
    """Whether systemd ends with a word, or speaks of a dependency on it."""
    return re.search(rf"(?:: | on ){re.escape(word)}(?:,|$)", said) is not None


def unit_option(name: str) -> str:
    """Return the option that declares a unit, ``systemd.timers."backup"``."""
    stem, _, suffix = name.rpartition(".")
    return f'systemd.{_OPTIONS.get(suffix, f"{suffix}s")}."{stem}"'


def _option(name: str, section: str) -> str:
    return f"{unit_option(name)}.{section.lower()}Config"
