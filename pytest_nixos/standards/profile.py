"""Profiles: named selections of controls, with the parameters and severities that go with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pytest_nixos.errors import CatalogueError
from pytest_nixos.findings import Severity
from pytest_nixos.standards.bundled import read_bundled
from pytest_nixos.standards.control.model import STANDARDS, Control
from pytest_nixos.standards.did_you_mean import did_you_mean
from pytest_nixos.standards.documents import read_document
from pytest_nixos.standards.format import ProfileFile, SelectionEntry
from pytest_nixos.standards.load import Catalogue

__all__ = ["Profile", "Selection", "load_profiles", "select_controls"]

Json = Any


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Controls by id, suite, standard, or clause of a standard; any of them is enough."""

    controls: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    standards: tuple[str, ...] = ()
    references: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)

    def matches(self, control: Control) -> bool:
        """Whether `control` is meant."""
        return (
            control.id in self.controls
            or control.suite in self.suites
            or any(standard in control.references for standard in self.standards)
            or any(
                clause in control.references.get(standard, ())
                for standard, clauses in self.references.items()
                for clause in clauses
            )
        )


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A named selection of controls.

    :param extends: profiles whose controls, parameters and severities it starts from.
    :param parameters: values for the parameters that controls refer to.
    :param severities: severity by control id.
    """

    name: str
    title: str
    description: str
    source: Path
    extends: tuple[str, ...] = ()
    select: Selection = msgspec.field(default_factory=Selection)
    exclude: Selection = msgspec.field(default_factory=Selection)
    parameters: Mapping[str, Json] = msgspec.field(default_factory=dict)
    severities: Mapping[str, Severity] = msgspec.field(default_factory=dict)


def load_profiles(catalogue: Catalogue, extra_dirs: Sequence[Path] = ()) -> Mapping[str, Profile]:
    """Load the bundled profiles and every ``profiles/*.toml`` below `extra_dirs`.

    :raises CatalogueError: if one is malformed, its name is taken, or it names something that does
        not exist.
    """
    loaded = [_parsed(file, path) for path, file in read_bundled("profiles", ProfileFile)]
    for directory in extra_dirs:
        paths = sorted((directory / "profiles").glob("*.toml"))
        loaded += [_parsed(read_document(path, ProfileFile), path) for path in paths]
    profiles: dict[str, Profile] = {}
    for profile in loaded:
        if (taken := profiles.get(profile.name)) is not None:
            raise CatalogueError(
                f"{profile.source}: profile: {profile.name!r} is taken by {taken.source}",
                remedy="choose another name; a profile builds on another with extends",
            )
        profiles[profile.name] = profile
    parameters = {name for control in catalogue for name in control.parameters()}
    for profile in profiles.values():
        _check_names(profile, profiles, catalogue, parameters)
    return profiles


def select_controls(
    names: Sequence[str], profiles: Mapping[str, Profile], catalogue: Catalogue
) -> tuple[Control, ...]:
    """Return the controls of all profiles in `names`, tuned, in the catalogue's order.

    Where two profiles set the same parameter or severity, the one named last wins. In place of a
    control that is judged as another comes that other.

    :raises CatalogueError: if a profile is not known, extends itself, or selects nothing.
    """
    chosen: set[str] = set()
    parameters: dict[str, Json] = {}
    severities: dict[str, Severity] = {}
    for name in names:
        for profile in _lineage(name, profiles, ()):
            parameters.update(profile.parameters)
            severities.update(profile.severities)
        ids = _selected(name, profiles, catalogue)
        if not ids:
            raise CatalogueError(
                f"{profiles[name].source}: select: profile {name!r} selects no control",
                remedy="name controls, suites or standards that exist: python -m pytest_nixos controls",
            )
        chosen |= ids
    judged = {catalogue.control(i).judged_as or i for i in chosen}
    return tuple(
        control.tuned(parameters, severities.get(control.id))
        for control in catalogue
        if control.id in judged
    )


def _selected(name: str, profiles: Mapping[str, Profile], catalogue: Catalogue) -> set[str]:
    """Return the ids that one profile selects; its exclusions apply to what it extends too."""
    profile = _profile(name, profiles)
    ids = {control.id for control in catalogue if profile.select.matches(control)}
    for base in profile.extends:
        ids |= _selected(base, profiles, catalogue)
    return {i for i in ids if not profile.exclude.matches(catalogue.control(i))}


def _lineage(
    name: str, profiles: Mapping[str, Profile], above: tuple[str, ...]
) -> Iterable[Profile]:
    """Yield what a profile extends, then the profile itself."""
    profile = _profile(name, profiles)
    if name in above:
        raise CatalogueError(
            f"{profile.source}: extends: {' > '.join([*above, name])} is a circle",
            remedy="remove one of these names from extends",
        )
    for base in profile.extends:
        yield from _lineage(base, profiles, (*above, name))
    yield profile


def _profile(name: str, profiles: Mapping[str, Profile]) -> Profile:
    if name not in profiles:
        raise CatalogueError(
            f"no profile {name!r}{did_you_mean(name, profiles)}",
            remedy=f"use one of {', '.join(sorted(profiles))}",
        )
    return profiles[name]


def _check_names(
    profile: Profile,
    profiles: Mapping[str, Profile],
    catalogue: Catalogue,
    parameters: Collection[str],
) -> None:
    for role, selection in (("select", profile.select), ("exclude", profile.exclude)):
        _known(profile, f"{role}.controls", selection.controls, catalogue.controls)
        _known(profile, f"{role}.suites", selection.suites, catalogue.suites)
        _known(profile, f"{role}.standards", selection.standards, STANDARDS)
        _known(profile, f"{role}.references", selection.references, STANDARDS)
    _known(profile, "severities", profile.severities, catalogue.controls)
    _known(profile, "parameters", profile.parameters, parameters)
    _known(profile, "extends", profile.extends, profiles)
    for _ in _lineage(profile.name, profiles, ()):
        pass


def _known(profile: Profile, where: str, names: Iterable[str], known: Iterable[str]) -> None:
    existing = set(known)
    for name in names:
        if name not in existing:
            raise CatalogueError(
                f"{profile.source}: {where}: {name!r} is not known{did_you_mean(name, existing)}",
                remedy="correct the name, or remove it",
            )


def _parsed(file: ProfileFile, path: Path) -> Profile:
    return Profile(
        name=file.profile,
        title=file.title,
        description=file.description.strip(),
        source=path,
        extends=tuple(file.extends),
        select=_selection(file.select),
        exclude=_selection(file.exclude),
        parameters=file.parameters,
        severities={name: Severity[word] for name, word in file.severities.items()},
    )


def _selection(entry: SelectionEntry) -> Selection:
    return Selection(
        controls=tuple(entry.controls),
        suites=tuple(entry.suites),
        standards=tuple(entry.standards),
        references={key: tuple(clauses) for key, clauses in entry.references.items()},
    )
