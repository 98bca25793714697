"""Where in a flake something stands: paths in the store told as paths of the user's flake or of
one of its inputs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

import msgspec

from pytest_nixos.nix.command.metadata import (
    input_by_url,
    local_sources,
    place_of_url,
    source_path,
    source_paths,
)

__all__ = ["SOURCE_ROOT", "Places"]

Json = Any

#: The root of a source tree as Nix writes it: in the store, or by its URL where it evaluates
#: without a copy (`setPathDisplay`).
SOURCE_ROOT = r"(?:/nix/store/[0-9a-z]{32}-source|«[^»\n]+»)"

_SOURCE = re.compile(f"(?P<root>{SOURCE_ROOT})" + r"(?:/(?P<below>[^\s'\"\u2019\u2018`:,;)\]]*))?")
_POSITION = re.compile(f"at (?P<file>(?:{SOURCE_ROOT})?" + r"/[^\s:]+):(?P<line>\d+)(?::\d+)?")
_LINE = re.compile(r"(?::\d+)+$")


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """The source trees that an evaluation of a flake reads.

    :param own: that of the flake itself, in the store; ``""`` where it is not known.
    :param inputs: those of its inputs: store path to the input's name.
    :param local: directories on this machine that sources come from, to the input's name; Nix from
        2.34 on points at files of local repositories there.
    :param metadata: what ``nix flake metadata`` says of the flake.
    """

    own: str = ""
    inputs: Mapping[str, str] = msgspec.field(default_factory=dict)
    local: Mapping[str, str] = msgspec.field(default_factory=dict)
    metadata: Mapping[str, Json] = msgspec.field(default_factory=dict)

    @classmethod
    def of(cls, metadata: Mapping[str, Json] | None) -> Self:
        """Read what ``nix flake metadata`` says of a flake."""
        if metadata is None:
            return cls()
        own = metadata.get("path") or source_path((metadata.get("locked") or {}).get("narHash"))
        return cls(
            own=str(own or ""),
            inputs=source_paths(metadata),
            local=local_sources(metadata),
            metadata=metadata,
        )

    def input_of(self, path: str) -> tuple[str, str] | None:
        """Return which input a path belongs to, and where in it; ``""`` names the flake itself.

        ``None`` stands for a path of neither.
        """
        found = _SOURCE.fullmatch(path)
        if found is None:
            above = [root for root in self.local if path.startswith(f"{root}/")]
            root = max(above, key=len, default="")
            return (self.local[root], path[len(root) + 1 :]) if root else None
        name = self._owner(found["root"])
        return None if name is None else (name, found["below"] or "")

    def shorten(self, text: str) -> str:
        """Return `text` with paths of the flake as they stand in it, and of an input below the
        input's name.
        """
        return _SOURCE.sub(self._short, text)

    def told(self, place: str) -> str:
        """Return a place that Nix points at, ``FILE:LINE``, as `shorten` does; one in the
        directory that a source comes from too.
        """
        known = self.input_of(_LINE.sub("", place))
        if known is None:
            return self.shorten(place)
        position = _LINE.search(place)
        return "/".join(filter(None, known)) + (position[0] if position else "")

    def nearest(self, trace: str) -> str:
        """Return the place in the flake itself that a trace of Nix names nearest to the failure,
        ``""`` if there is none.

        Nix up to 2.17 tells a trace from the failure outwards, later ones towards it.
        """
        positions = list(_POSITION.finditer(trace))
        own = [p for p in positions if (known := self.input_of(p["file"])) and not known[0]]
        if not own:
            return ""
        inwards = trace.strip().removeprefix("error:").lstrip().startswith("…")
        nearest = own[-1] if inwards else own[0]
        return f"{self.told(nearest['file'])}:{nearest['line']}"

    def _owner(self, root: str) -> str | None:
        """Return the name of the input that a source tree is of, ``""`` for the flake itself,
        ``None`` for neither.
        """
        if not root.startswith("«"):
            return "" if root == self.own else self.inputs.get(root)
        url = root.strip("«»")
        own = {str(self.metadata.get(key)) for key in ("url", "originalUrl", "resolvedUrl")}
        if place_of_url(url) in {place_of_url(name) for name in own}:
            return ""
        return input_by_url(self.metadata, url)

    def _short(self, found: re.Match[str]) -> str:
        known = self.input_of(found[0])
        if known is None:
            return found[0]
        name, below = known
        return "/".join(part for part in (name, below) if part) or "."
