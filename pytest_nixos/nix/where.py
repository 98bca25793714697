"""From what the module system tells of an option to places in the user's flake: file, line and
column.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

from pytest_nixos.nix.command.refs import HomesRef
from pytest_nixos.nix.config.bindings import find_binding
from pytest_nixos.nix.config.definitions import Definition, Definitions, Spot
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.places import Places
from pytest_nixos.nix.expression import option_names
from pytest_nixos.place import How, Place

__all__ = ["Whereabouts"]

_MOST_BYTES = 1 << 20
_MOST_FILES = 2000
_MOST_DEFINITIONS = 6
_SKIPPED = frozenset({".git", ".direnv", "node_modules", "result"})


class Whereabouts:
    """Finds where one host's options are set.

    :param host: with the definitions that were asked for.
    :param trees: which source tree is whose.
    :param root: of the tree that holds the flake, in the store.
    :param folder: the flake's below that root, ``""`` at the top.
    """

    def __init__(self, host: HostConfig, *, trees: Places, root: Path, folder: str = "") -> None:
        self._host = host
        self._trees = trees
        self._root = root
        self._folder = folder

    @property
    def known(self) -> bool:
        """Whether definitions were asked for at all."""
        return bool(self._host.where)

    def asked(self, path: str) -> Definitions | None:
        """Return what the module system tells of a path that was asked for."""
        return self._host.where.get(path)

    def value_of(self, path: str) -> object:
        """Return the value of an option that was read, ``None`` otherwise."""
        return self._host.option(path).value

    def of_option(self, path: str) -> tuple[Place, ...]:
        """Return where an option gets its value, the user's own files first; nothing where the host
        has no such option, or nobody asked for it.
        """
        definitions = self.asked(path)
        if definitions is None or definitions.enabled:
            return ()
        names = option_names(path)
        if not definitions.deciding:
            return self._default(path, definitions)
        places = [
            self._located(path, names, definitions, each)
            for each in definitions.deciding[:_MOST_DEFINITIONS]
        ]
        return tuple(sorted(dict.fromkeys(places), key=lambda place: not place.own))

    def of_member(self, path: str, name: str, below: Sequence[str] = ()) -> tuple[Place, ...]:
        """Return where a member of an option's value is set: a service of ``systemd.services``.

        :param path: of the option; ``PATH.*`` has to have been asked for.
        :param below: names inside the member, looked for in the same files.
        """
        definitions = self.asked(f"{path}.*")
        if definitions is None:
            return ()
        names = (*option_names(path), name)
        option = ".".join((path, _quoted(name)))
        found: list[Place] = []
        for member in definitions.members:
            if member.name == name:
                inner = self._inner(member.spot, (*names, *below)) if below else None
                found.append(inner or self._placed(option, names, member.spot, ""))
        found += [
            self._placed(f"{option}.enable", (*names, "enable"), each.spot, "")
            for each in definitions.enabled
            if each.name == name
        ]
        return tuple(sorted(dict.fromkeys(found), key=lambda place: not place.own))

    def of_key(self, path: str, key: str) -> tuple[Place, ...]:
        """Return where one key of an option's value is set, in the files that set the option."""
        definitions = self.asked(path)
        found = definitions.deciding if definitions is not None else ()
        names = (*option_names(path), key)
        inner = [self._inner(each.spot, names) for each in found]
        return tuple(dict.fromkeys(place for place in inner if place is not None))

    def written(self, path: str) -> tuple[Place, ...]:
        """Return where the flake's own files set an option that only its name is known of, such as
        one of a warning.
        """
        found = self._written_inline(option_names(path), "", None)
        if found is None:
            return ()
        _, file, line, column = found
        return (Place(option=path, how=How.SET, file=file, line=line, column=column),)

    def in_source(self, file: str, line: int) -> tuple[Place, ...]:
        """Return a place that a finding names itself, if the flake has such a file."""
        if ".." in file or not (self._root / self._folder / file).is_file():
            return ()
        return (Place(option="", how=How.TEXT, file=file, line=line),)

    def line_at(self, place: Place) -> str:
        """Return the line of the flake that a place names, ``""`` where there is none."""
        if not place.own or place.line is None:
            return ""
        lines = _text_of(self._root / self._folder / place.file).splitlines()
        return lines[place.line - 1] if place.line <= len(lines) else ""

    @cached_property
    def of_host(self) -> Place | None:
        """Where the flake defines the host itself, where that can be read in ``flake.nix``."""
        text = _text_of(self._root / self._folder / "flake.nix")
        is_home = isinstance(self._host.ref.flake, HomesRef)
        wanted = (
            "homeConfigurations" if is_home else "nixosConfigurations",
            self._host.name,
        )
        for prefix in ((), ("outputs",), ("flake",)):
            binding = find_binding(text, (*prefix, *wanted))
            if binding is not None:
                return Place(
                    option="",
                    how=How.HOST,
                    file="flake.nix",
                    line=binding.line,
                    column=binding.column,
                )
        return None

    def _default(self, path: str, definitions: Definitions) -> tuple[Place, ...]:
        if not definitions.declared:
            return ()
        if not definitions.found and not definitions.rest:
            return (Place(option=path, how=How.UNSET),)
        spot = definitions.declared[0]
        source, file = self._file(spot.file)
        line, column = spot.line, spot.column
        on_disk = self._on_disk(spot.file)
        if line is None and on_disk is not None:
            names = option_names(path)
            option = names[: len(names) - len(definitions.rest)]
            declared = find_binding(_text_of(on_disk), ("options", *option))
            if declared is not None and len(declared.path) == len(option) + 1:
                line, column = declared.line, declared.column
        return (
            Place(option=path, how=How.DEFAULT, file=file, line=line, column=column, source=source),
        )

    def _located(
        self, path: str, names: Sequence[str], definitions: Definitions, each: Definition
    ) -> Place:
        declared = self._host.option(path)
        return self._placed(
            path,
            names,
            each.spot,
            definitions.priority_of(each),
            value=declared.value if declared.present else None,
        )

    def _placed(
        self, option: str, names: Sequence[str], spot: Spot, priority: str, value: object = None
    ) -> Place:
        """Return the place of a definition; the line is looked for in its file where Nix does not
        tell it.
        """
        source, file = self._file(spot.file)
        line, column = spot.line, spot.column
        if line is None:
            file_path = self._on_disk(spot.file)
            found = (
                find_binding(
                    _text_of(file_path), names, host=self._host.name, priority=priority, value=value
                )
                if file_path is not None
                else None
            )
            if found is not None:
                line, column = found.line, found.column
            elif (source and Path(file).name == "flake.nix") or not file:
                # A module written in flake.nix itself: nixpkgs' nixosSystem, which takes it, stands
                # for its file, or nothing does.
                source, file, line, column = self._written_inline(names, priority, value) or (
                    source,
                    file,
                    None,
                    None,
                )
        return Place(
            option=option,
            how=How.SET,
            file=file,
            line=line,
            column=column,
            source=source,
            priority=priority,
        )

    def _inner(self, spot: Spot, names: Sequence[str]) -> Place | None:
        """Return the place of a key inside a member, in the file that sets the member."""
        path = self._on_disk(spot.file)
        found = find_binding(_text_of(path), names, host=self._host.name) if path else None
        if found is None or len(found.path) < len(names):
            return None
        source, file = self._file(spot.file)
        option = ".".join(map(_quoted, names))
        return Place(
            option=option,
            how=How.SET,
            file=file,
            line=found.line,
            column=found.column,
            source=source,
        )

    def _written_inline(
        self, names: Sequence[str], priority: str, value: object
    ) -> tuple[str, str, int, int] | None:
        """Look for a definition whose file nobody knows: in flake.nix, then in the one other file of
        the flake that has it.
        """
        folder = self._root / self._folder
        whole = tuple(names)

        def found_in(path: Path) -> tuple[str, str, int, int] | None:
            text = _text_of(path)
            # A large flake has thousands of files: those without the name need no parse.
            if whole[-1] not in text:
                return None
            found = find_binding(text, whole, host=self._host.name, priority=priority, value=value)
            if found is None or found.path[: len(whole)] != whole:
                return None
            return "", str(path.relative_to(folder)), found.line, found.column

        if (first := found_in(folder / "flake.nix")) is not None:
            return first
        others = [place for path in _nix_files(folder) if (place := found_in(path)) is not None]
        return others[0] if len(others) == 1 else None

    def _file(self, name: str) -> tuple[str, str]:
        """Return whose file a path in the store is, and where: input and relative path."""
        known = self._owner(name)
        on_disk = self._on_disk(name)
        if known is None:
            return ("", "") if not name.startswith("/") else _elsewhere(name)
        source, below = known
        if on_disk is not None and on_disk.name == "default.nix" and not name.endswith(".nix"):
            below = f"{below}/default.nix".lstrip("/")
        if not source and self._folder:
            below = below.removeprefix(f"{self._folder}/")
        return source, below

    def _owner(self, name: str) -> tuple[str, str] | None:
        """Return which input a file belongs to, and where in it; ``""`` names the flake itself, also
        where Nix evaluates it without a copy in the store.
        """
        if name.startswith(f"{self._root}/"):
            return "", name.removeprefix(f"{self._root}/")
        return self._trees.input_of(name)

    def _on_disk(self, name: str) -> Path | None:
        """Return the file to read of a path in the store; a module's folder stands for its
        ``default.nix``.
        """
        known = self._owner(name)
        path = Path(name)
        if known is not None and known[0] == "":
            path = self._root / known[1]
        if path.is_dir():
            path /= "default.nix"
        return path if path.is_absolute() and path.is_file() else None


def _elsewhere(name: str) -> tuple[str, str]:
    """Return a store path that is neither the flake's nor an input's, without its hash."""
    parts = name.removeprefix("/nix/store/").split("/")
    return parts[0].partition("-")[2] or parts[0], "/".join(parts[1:])


def _quoted(name: str) -> str:
    plain = name.replace("-", "").replace("_", "").isalnum() and not name[0].isdigit()
    return name if plain else f'"{name}"'


def _nix_files(folder: Path) -> Iterator[Path]:
    count = 0
    for root, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if name not in _SKIPPED)
        for file in sorted(files):
            if file.endswith(".nix") and file != "flake.nix":
                count += 1
                if count > _MOST_FILES:
                    return
                yield Path(root) / file


@lru_cache(maxsize=512)
def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_MOST_BYTES).decode(errors="replace")
    except OSError:
        return ""
