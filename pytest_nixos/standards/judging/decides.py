"""Which options decide a control: what has to be asked of the module system, and which places a
finding rests on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pytest_nixos.errors import SettingsError
from pytest_nixos.nix.expression import option_names
from pytest_nixos.nix.where import Whereabouts
from pytest_nixos.place import Place
from pytest_nixos.standards.control.declared_facts import DECLARED_FACTS
from pytest_nixos.standards.control.model import Control, DeclaredSpec
from pytest_nixos.standards.judging.statements import statements
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.subject import Subject, SubjectKind

__all__ = ["places_of", "where_paths"]

Json = Any

#: Sets whose members findings are about: a unit, a user, a mount.
MEMBERS = (
    "systemd.services.*",
    "systemd.timers.*",
    "systemd.sockets.*",
    "systemd.paths.*",
    "systemd.user.services.*",
    "users.users.*",
    "fileSystems.*",
    "services.*",
)
_MOST_PLACES = 8
_MOST_MEMBERS = 4
_UNIT_OPTIONS = {
    "service": "systemd.services",
    "timer": "systemd.timers",
    "socket": "systemd.sockets",
    "path": "systemd.paths",
}
_NAMED_FILE = re.compile(r"(?<![\w/.-])((?:[\w-][\w.-]*/)*[\w-][\w.-]*\.nix):(\d+)")
#: In a finding about the flake's own files, of whatever kind.
_SCANNED_FILE = re.compile(r"(?:^|\s)((?:[^\s:,/]+/)*[^\s:,/]+):(\d+): ")
#: An option in a message of the module system: "The option `services.old.name' has been renamed".
_NAMED_OPTION = re.compile(r"[Oo]ptions? [`'\"]((?:[a-z][\w-]*\.)+[\w-]+)[`'\"]")
_OPTION = re.compile(r"[a-z][\w-]*(\.([\w-]+|\"[^\"$<>]+\"))+")


def where_paths(controls: Iterable[Control]) -> tuple[str, ...]:
    """Return what to ask the module system about, so that findings of `controls` can point to what
    decides them; each once, sorted.

    A path that ends in ``.*`` stands for the members of a set.
    """
    paths = {path for control in controls for path in _paths(control)}
    sets = {path.removesuffix(".*") for path in MEMBERS}
    # Members of a set that is asked for as a whole need no question of their own.
    return tuple(sorted({p for p in paths if _member(p, sets) is None} | set(MEMBERS)))


def places_of(
    control: Control,
    whereabouts: Whereabouts,
    *,
    remedy: str,
    reason: str,
    observed: Json,
    blames: Sequence[Subject] = (),
) -> tuple[Place, ...]:
    """Return where what decides a violated control stands: options that are set first, then where a
    default comes from, at last the host's own entry.

    :param remedy: of this host: the options that it sets are those that decide.
    :param reason: the finding's sentence; it names the members (units, users) that are meant.
    :param blames: what was found broken.
    """
    if not whereabouts.known:
        return ()
    said = f"{reason}\n{json.dumps(observed, default=str)}"
    found = dict.fromkeys(_deciding(control, whereabouts, remedy=remedy, said=said, reason=reason))
    for subject in blames:
        found |= dict.fromkeys(_of_unit(subject, whereabouts))
    if not any(place.own for place in found):
        for requirement in control.requires:
            for path in _of_spec(requirement.declared):
                own = [p for p in _of_path(path, whereabouts, said, reason) if p.own]
                found |= dict.fromkeys(own)
    places = sorted(found, key=lambda place: (not place.own, not place.line))[:_MOST_PLACES]
    if not any(place.own and place.line for place in places) and whereabouts.of_host is not None:
        places = [*places[: _MOST_PLACES - 1], whereabouts.of_host]
    return tuple(places)


def _deciding(
    control: Control, whereabouts: Whereabouts, *, remedy: str, said: str, reason: str
) -> Iterator[Place]:
    """Yield where the options stand that a control reads, that its remedy sets, and that the finding
    names.
    """
    for path in dict.fromkeys(_declared(control)):
        yield from _of_path(path, whereabouts, said, reason)
    for path, value in _assignments(remedy):
        # What the flake says just so is an example of the remedy, and not what is wrong.
        for place in _of_path(path, whereabouts, said, reason):
            if f"= {value};" not in whereabouts.line_at(place):
                yield place
    for path in dict.fromkeys(_NAMED_OPTION.findall(said)):
        yield from whereabouts.written(path)
    scanned = control.observed is not None and control.observed.kind == "source-scan"
    named = _NAMED_FILE.findall(reason) + (_SCANNED_FILE.findall(reason) if scanned else [])
    for file, line in named:
        yield from whereabouts.in_source(file, int(line))


def _paths(control: Control) -> Iterator[str]:
    yield from _declared(control)
    for remedy in control.remedies:
        yield from (path for path, _ in _assignments(remedy.text))
    for requirement in control.requires:
        yield from _of_spec(requirement.declared)


def _declared(control: Control) -> Iterator[str]:
    if control.declared is not None:
        yield from _of_spec(control.declared)
    observed = control.observed
    if observed is not None:
        yield from KINDS[observed.kind].options(observed.parameters)


def _of_spec(spec: DeclaredSpec) -> Iterator[str]:
    if spec.fact is not None:
        yield from DECLARED_FACTS[spec.fact].options
    keys = list(spec.select[: spec.select.index("*")] if "*" in spec.select else spec.select)
    for option in spec.options:
        yield ".".join((option, *(_quoted(key) for key in keys)))


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    """Yield the options that a remedy sets, with the value as written; up to a placeholder where its
    path has one.
    """
    for statement in statements(text):
        if statement.assignment is not None:
            path = re.split(r"\.\"?(?:<|\*)|<", statement.assignment[0])[0].rstrip('."')
            match = _OPTION.match(path)
            if match is not None and match[0] == path and _is_path(path):
                yield path, statement.assignment[1].strip()


def _is_path(path: str) -> bool:
    try:
        option_names(path)
    except SettingsError:
        return False
    return True


def _of_path(path: str, whereabouts: Whereabouts, said: str, reason: str) -> tuple[Place, ...]:
    if path.startswith("inputs."):
        return whereabouts.written(path)
    sets = {each.removesuffix(".*") for each in MEMBERS}
    member = _member(path, sets)
    if member is not None:
        option, name, below = member
        return whereabouts.of_member(option, name, below)
    if path in sets:
        asked = whereabouts.asked(f"{path}.*")
        members = dict.fromkeys(m.name for m in asked.members) if asked is not None else {}
        meant = _named(members, said)[:_MOST_MEMBERS]
        return tuple(place for name in meant for place in whereabouts.of_member(path, name))
    value = whereabouts.value_of(path)
    names = [str(key) for key in value] if isinstance(value, Mapping) else []
    # What was looked at may name keys that are as they should be; the finding's sentence does not.
    keys = _named(names, reason) or _named(names, said)
    narrow = [p for key in keys[:_MOST_MEMBERS] for p in whereabouts.of_key(path, str(key))]
    return tuple(narrow) or whereabouts.of_option(path)


def _of_unit(subject: Subject, whereabouts: Whereabouts) -> tuple[Place, ...]:
    """Return where a unit is defined, and where what brings it is enabled."""
    if subject.kind is not SubjectKind.UNIT:
        return ()
    name, _, suffix = subject.name.rpartition(".")
    option = _UNIT_OPTIONS.get(suffix)
    if option is None:
        return ()
    return (*whereabouts.of_member(option, name), *whereabouts.of_member("services", name))


def _member(path: str, sets: set[str]) -> tuple[str, str, tuple[str, ...]] | None:
    """Split a path that leads into a set whose members are asked for."""
    for option in sets - {"services"}:
        if path.startswith(f"{option}."):
            names = option_names(path)
            own = len(option_names(option))
            return option, names[own], names[own + 1 :]
    return None


def _named(names: Iterable[str], said: str) -> list[str]:
    return [n for n in names if re.search(rf"(?<![\w-]){re.escape(n)}(?![\w-])", said)]


def _quoted(key: str) -> str:
    plain = key.replace("-", "").replace("_", "").isalnum()
    return key if plain else f'"{key}"'
