"""Where in a flake something stands: paths in the store told as paths of the user's flake or of one of its inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pytest_nixos.nix.metadata import source_path, source_paths

__all__ = ["Places"]

Json = Any

_SOURCE = re.compile(
    r"(?P<root>/nix/store/[0-9a-z]{32}-source)(?:/(?P<below>[^\s'\"\u2019\u2018`:,;)\]]*))?"
)
_POSITION = re.compile(
    r"at (?P<file>/nix/store/[0-9a-z]{32}-source/[^\s:]+):(?P<line>\d+)(?::\d+)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The source trees that an evaluation of a flake reads.

    :param own: that of the flake itself, in the store; ``""`` where it is not known.
    :param inputs: those of its inputs: store path to the input's name.
    """

    own: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, metadata: Mapping[str, Json] | None) -> Self:
        """Read what ``nix flake metadata`` says of a flake."""
        if metadata is None:
            return cls()
        own = metadata.get("path") or source_path((metadata.get("locked") or {}).get("narHash"))
        return cls(own=str(own or ""), inputs=source_paths(metadata))

    def input_of(self, path: str) -> tuple[str, str] | None:
        """Return which input a path in the store belongs to, and where in it; ``""`` names the flake itself.

        ``None`` stands for a path of neither.
        """
        found = _SOURCE.fullmatch(path)
        if found is None:
            return None
        below = found["below"] or ""
        if found["root"] == self.own:
            return "", below
        name = self.inputs.get(found["root"])
        return None if name is None else (name, below)

    def shorten(self, text: str) -> str:
        """Return `text` with paths of the flake as they stand in it, and of an input below the input's name."""
        return _SOURCE.sub(self._short, text)

    def nearest(self, trace: str) -> str:
        """Return the place in the flake itself that a trace of Nix names nearest to the failure, ``""`` if there is none.

        Nix up to 2.17 tells a trace from the failure outwards, later ones towards it.
        """
        positions = list(_POSITION.finditer(trace))
        own = [p for p in positions if self.own and p["file"].startswith(f"{self.own}/")]
        if not own:
            return ""
        inwards = trace.strip().removeprefix("error:").lstrip().startswith("…")
        nearest = own[-1] if inwards else own[0]
        return f"{Path(nearest['file']).relative_to(self.own)}:{nearest['line']}"

    def _short(self, found: re.Match[str]) -> str:
        known = self.input_of(found[0])
        if known is None:
            return found[0]
        name, below = known
        return "/".join(part for part in (name, below) if part) or "."
