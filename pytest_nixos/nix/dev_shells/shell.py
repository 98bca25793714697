"""Development shells of a flake: what they declare, and what one finds who enters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

__all__ = ["DevShell", "ShellVisit", "Tool"]

Json = Any

_STORE = "/nix/store/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A package that a development shell puts on PATH.

    :param main_program: what ``meta.mainProgram`` names, ``None`` where it names nothing.
    :param outputs: its store paths.
    """

    name: str
    main_program: str | None
    outputs: tuple[str, ...]

    def programs(self) -> tuple[str, ...]:
        """List the programs that it brings, in order of name; none before it is built, and none
        for a library.
        """
        folders = [Path(output) / "bin" for output in self.outputs]
        return tuple(
            sorted({entry.name for f in folders if f.is_dir() for entry in f.iterdir()} - {""})
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DevShell:
    """What one development shell declares.

    :param variables: environment variables by name, as text; ``PATH``-like ones are lists with
        ``:``.
    """

    system: str
    name: str
    derivation: str
    tools: tuple[Tool, ...]
    variables: Mapping[str, str]

    @classmethod
    def parse(cls, system: str, name: str, document: Mapping[str, Json]) -> Self:
        """Read what ``nix/expressions/dev-shells.nix`` says of one shell."""
        return cls(
            system=system,
            name=name,
            derivation=str(document["derivation"]),
            tools=tuple(
                Tool(
                    name=str(tool["name"]),
                    main_program=tool["mainProgram"],
                    outputs=tuple(tool["outputs"]),
                )
                for tool in document["tools"]
            ),
            variables={
                key: str(value) for key, value in document["variables"].items() if value is not None
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellVisit:
    """What entering a development shell did, in a copy of the flake and with an empty home
    directory.

    :param entered: whether a command ran in it within the limit.
    :param failure: why not, in Nix's words; ``""`` if it was entered.
    :param said: what the shell itself wrote while it was entered, without Nix's log.
    :param environment: environment variables inside.
    :param default_path: what bash takes for PATH where its environment has none; Nix adds it to the
        shell's own.
    :param project: files that it made, changed or removed in the copy of the flake.
    :param home: files that it made in the home directory.
    :param left_running: command lines of processes that were still there afterwards.
    """

    entered: bool
    failure: str
    said: str
    environment: Mapping[str, str]
    default_path: tuple[str, ...]
    project: tuple[str, ...]
    home: tuple[str, ...]
    left_running: tuple[str, ...]
    duration_s: float

    @property
    def path(self) -> tuple[str, ...]:
        """The directories of PATH inside."""
        return tuple(part for part in self.environment.get("PATH", "").split(":") if part)

    @property
    def foreign_path(self) -> tuple[str, ...]:
        """Those directories of PATH that are there, lie outside of the Nix store, and that the
        shell itself added.
        """
        own, default = list(self.path), list(self.default_path)
        for at in range(len(own) - len(default) + 1):
            if default and own[at : at + len(default)] == default:
                del own[at : at + len(default)]
                break
        return tuple(part for part in own if not part.startswith(_STORE) and Path(part).is_dir())

    def find(self, program: str) -> str | None:
        """Return the file that a shell in there would run for `program`, ``None`` if there is
        none.
        """
        for directory in self.path:
            candidate = Path(directory) / program
            if candidate.is_file() and candidate.stat().st_mode & 0o111:
                return str(candidate)
        return None


def changed_files(
    before: Mapping[str, Sequence[int]], after: Mapping[str, Sequence[int]]
) -> tuple[str, ...]:
    """Name what differs between two :func:`snapshots <file_states>`, with ``+``, ``-`` or ``~``
    before it.
    """
    signs = {
        name: "+" if name not in before else "-" if name not in after else "~"
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    }
    return tuple(f"{signs[name]} {name}" for name in sorted(signs))


def file_states(directory: Path) -> Mapping[str, Sequence[int]]:
    """Return mode, size and time of change of every file below a directory; a directory has its
    mode only.
    """
    found: dict[str, Sequence[int]] = {}
    for path in directory.rglob("*"):
        status = path.lstat()
        plain = (status.st_mode, status.st_size, status.st_mtime_ns)
        found[str(path.relative_to(directory))] = (
            plain[:1] if path.is_dir() and not path.is_symlink() else plain
        )
    return found
