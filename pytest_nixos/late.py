"""Names of a package that load when they are first used: an import of the package then costs nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping

__all__ = ["late_names"]


def late_names(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """Return what a package takes for its ``__getattr__``.

    :param package: its name.
    :param homes: module by name, below the package.
    """

    def load(name: str) -> object:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{home}"), name)

    return load
