"""The catalogue: every bundled suite, and those that users add in their own repository."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from pytest_nixos.errors import CatalogueError
from pytest_nixos.standards.bundled import read_bundled
from pytest_nixos.standards.control.model import Control, Suite
from pytest_nixos.standards.did_you_mean import did_you_mean
from pytest_nixos.standards.documents import read_document
from pytest_nixos.standards.format import CatalogueFile
from pytest_nixos.standards.frameworks import with_evidence
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.standards.parse import check_patterns, parse_control, parse_suite

__all__ = ["Catalogue", "load_catalogue", "option_paths"]

Json = Any


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """All controls by id, and the suites that group them."""

    suites: Mapping[str, Suite]
    controls: Mapping[str, Control]

    def __iter__(self) -> Iterator[Control]:
        return iter(self.controls.values())

    def __len__(self) -> int:
        return len(self.controls)

    def control(self, control_id: str) -> Control:
        """Return one control.

        :raises CatalogueError: if there is none of that id; the nearest one is suggested.
        """
        try:
            return self.controls[control_id]
        except KeyError as err:
            raise CatalogueError(
                f"no control {control_id!r}{did_you_mean(control_id, self.controls)}",
                remedy="list the known ones: python -m pytest_nixos controls",
            ) from err


def load_catalogue(extra_dirs: Sequence[Path] = ()) -> Catalogue:
    """Load the bundled catalogue and every ``*.toml`` in `extra_dirs`, in that order.

    A user's file has the same format as a bundled one. A control whose id is taken replaces the
    other only if it says ``overrides = true``; a suite that exists already is extended.

    :raises CatalogueError: if a file is malformed or an id is there twice.
    """
    bundled = read_bundled("catalogue", CatalogueFile)
    documents = list(bundled)
    for directory in extra_dirs:
        found = _toml_files(directory)
        documents += [(path, read_document(path, CatalogueFile)) for path in found]
    catalogue, ours = _assemble(documents), {path for path, _ in bundled}
    for control in catalogue:
        # Tests of this package have compiled its own, which takes as long as all else here.
        if control.source not in ours:
            check_patterns(control)
    return _with_frameworks(catalogue, ours)


def option_paths(controls: Iterable[Control]) -> tuple[str, ...]:
    """Return every option path that judging `controls` reads, sorted, each once."""
    paths: set[str] = set()
    for control in controls:
        for requirement in control.requires:
            paths.update(requirement.declared.options)
        for remedy in control.remedies:
            for condition in remedy.when:
                paths.update(condition.declared.options)
        paths.update(fill.option for fill in control.fill.values() if fill.option is not None)
        if control.declared is not None:
            paths.update(control.declared.options)
        if control.observed is not None:
            kind = KINDS[control.observed.kind]
            paths.update(kind.options(control.observed.parameters))
    return tuple(sorted(paths))


def _toml_files(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise CatalogueError(
            f"{directory}: no such directory of catalogue files",
            remedy="name an existing directory that holds *.toml files",
        )
    return sorted(directory.glob("*.toml"))


def _assemble(documents: Sequence[tuple[Path, CatalogueFile]]) -> Catalogue:
    suites: dict[str, Suite] = {}
    controls: dict[str, Control] = {}
    for path, document in documents:
        _refuse_duplicates(path, document, controls)
        if (known := suites.get(document.suite)) is None:
            suite = parse_suite(document, path)
        else:
            added = tuple(parse_control(entry, known.name, path) for entry in document.control)
            suite = _extended(known, added)
        suites[suite.name] = suite
        controls.update((control.id, control) for control in suite.controls)
    _check_aliases(controls)
    return Catalogue(suites=_refreshed(suites, controls), controls=controls)


def _with_frameworks(catalogue: Catalogue, bundled: set[Path]) -> Catalogue:
    """Add the clauses of frameworks to the controls of the bundled files.

    A control that a user put in the place of one may judge something else.
    """
    ours = with_evidence(control for control in catalogue if control.source in bundled)
    controls = {**catalogue.controls, **{control.id: control for control in ours}}
    suites = {
        name: replace(suite, controls=tuple(controls[control.id] for control in suite.controls))
        for name, suite in catalogue.suites.items()
    }
    return Catalogue(suites=suites, controls=controls)


def _check_aliases(controls: Mapping[str, Control]) -> None:
    for control in controls.values():
        if control.judged_as is None:
            continue
        other = controls.get(control.judged_as)
        if other is None or other.judged_as is not None:
            raise CatalogueError(
                f"{control.source}: {control.id}: judged-as: {control.judged_as!r} is "
                + ("itself judged as another" if other else "not known")
                + did_you_mean(control.judged_as, controls),
                remedy="name a control that has a judge of its own",
            )


def _extended(suite: Suite, added: Sequence[Control]) -> Suite:
    replaced = {control.id: control for control in added}
    kept = [replaced.pop(control.id, control) for control in suite.controls]
    return Suite(
        name=suite.name,
        title=suite.title,
        description=suite.description,
        controls=(*kept, *replaced.values()),
        source=suite.source,
    )


def _refreshed(suites: Mapping[str, Suite], controls: Mapping[str, Control]) -> dict[str, Suite]:
    """Drop from each suite what a later file moved to another one."""
    return {
        name: Suite(
            name=name,
            title=suite.title,
            description=suite.description,
            controls=tuple(c for c in suite.controls if controls[c.id] is c),
            source=suite.source,
        )
        for name, suite in suites.items()
    }


def _refuse_duplicates(path: Path, document: CatalogueFile, known: Mapping[str, Control]) -> None:
    seen: set[str] = set()
    for entry in document.control:
        control_id = entry.id
        if control_id in seen:
            raise CatalogueError(
                f"{path}: {control_id}: id: is there twice in this file",
                remedy="give one of the two another id",
            )
        seen.add(control_id)
        taken = known.get(control_id)
        if taken is not None and not entry.overrides:
            raise CatalogueError(
                f"{path}: {control_id}: id: is taken by {taken.source}",
                remedy="choose another id, or say overrides = true to replace that control",
            )
        if taken is None and entry.overrides:
            raise CatalogueError(
                f"{path}: {control_id}: overrides: there is no such control to replace"
                f"{did_you_mean(control_id, known)}",
                remedy="correct the id, or remove overrides = true",
            )
