"""Which NixOS releases are still supported: a dated table that ships with the catalogue."""

from __future__ import annotations

import datetime as dt
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import msgspec

__all__ = ["Releases", "load_releases"]

#: A release is out for seven months.
_LIFETIME = dt.timedelta(days=213)


class Releases(msgspec.Struct, frozen=True, kw_only=True):
    """End of support by release, and the names of rolling branches."""

    end_of_support: Mapping[str, dt.date]
    rolling: tuple[str, ...]

    def release_problem(self, release: str, today: dt.date) -> str | None:
        """Say why `release` (``24.05``) is not supported on `today`, if so; one newer than the
        table is.
        """
        known = re.match(r"\d{2}\.\d{2}", release)
        if known is None:
            return f"{release!r} is no NixOS release"
        end = self.end_of_support.get(known[0])
        if end is None:
            newest = max(self.end_of_support)
            return None if known[0] > newest else f"NixOS {known[0]} is not supported"
        return None if today <= end else f"NixOS {known[0]} is not supported since {end}"

    def newest_supported(self, today: dt.date) -> str:
        """Return the newest release that is out on `today`."""
        out = [r for r, end in self.end_of_support.items() if end - today <= _LIFETIME]
        return max(out, default=max(self.end_of_support))

    def branch_problem(self, branch: str, today: dt.date) -> str | None:
        """Say why the nixpkgs branch is not supported, if so."""
        if branch in self.rolling:
            return None
        numbered = re.fullmatch(
            r"(?:nixos|release|nixpkgs)-(\d{2}\.\d{2})(?:-small|-darwin)?", branch
        )
        if numbered is None:
            return f"{branch!r} is no branch of nixpkgs that gets updates"
        return self.release_problem(numbered[1], today)


@cache
def load_releases() -> Releases:
    """Read the bundled table."""
    text = files("pytest_nixos.standards").joinpath("data/releases.toml").read_text("utf-8")
    table = tomllib.loads(text)
    return Releases(end_of_support=dict(table["end-of-support"]), rolling=tuple(table["rolling"]))
