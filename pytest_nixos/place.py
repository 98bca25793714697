"""A place in a flake that decides the value of an option: what a finding points to."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["How", "Place"]


class How(enum.Enum):
    """What stands at a place."""

    SET = "set"
    DEFAULT = "default"
    UNSET = "unset"
    TEXT = "text"
    HOST = "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an option of one host gets its value.

    :param option: option path as written in a module; empty for ``host`` and ``text``.
    :param how: ``set`` there; ``default``: nobody sets it, and its default is declared there;
        ``unset``: nobody sets it, and it has no default; ``text``: the finding is about the text there;
        ``host``: the host itself is defined there,
        which is where a remedy goes that nothing stands for yet.
    :param file: relative to the root of the flake, or of the input that `source` names; empty where
        no file is known.
    :param line: from 1; ``None`` where only the file is known.
    :param column: from 1.
    :param source: name of the input whose file it is (``nixpkgs``), empty for the flake itself.
    :param priority: ``mkForce``, ``mkDefault`` or ``mkOverride N`` where the value was given so.
    """

    option: str
    how: How
    file: str = ""
    line: int | None = None
    column: int | None = None
    source: str = ""
    priority: str = ""

    @property
    def own(self) -> bool:
        """Whether it is a file of the tested flake itself."""
        return bool(self.file) and not self.source

    @property
    def spot(self) -> str:
        """File and line as editors take them: ``hosts/web.nix:12``; an input's below its name."""
        path = "/".join(part for part in (self.source, self.file) if part)
        return f"{path}:{self.line}" if path and self.line else path

    @property
    def words(self) -> str:
        """What stands where, in one line."""
        match self.how:
            case How.HOST:
                return f"{self.spot} (the host's own entry)"
            case How.TEXT:
                return self.spot
            case How.UNSET:
                return f"{self.option} is not set, and has no default"
            case How.DEFAULT:
                return f"{self.option} is not set; the default comes from {self.spot or 'an unknown file'}"
            case How.SET:
                by = f", by {self.priority}" if self.priority else ""
                return f"{self.spot or 'an unknown file'} sets {self.option}{by}"

    def to_json(self) -> dict[str, Any]:
        """Write it as plain JSON values."""
        return {**dataclasses.asdict(self), "how": self.how.value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read back what :meth:`to_json` wrote."""
        return cls(**{**data, "how": How(data["how"])})
