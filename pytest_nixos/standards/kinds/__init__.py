"""Kinds of observation, which need no code per control: one file a kind, or a small family of
kinds.

Each module here has ``KINDS``: what its kinds are called, what a catalogue entry says to them,
which probe reads them and how a control's value is found. A new module is found by being here.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from pytest_nixos.standards.kinds.kind import Kind

__all__ = ["KINDS", "find_kinds"]


def find_kinds() -> Mapping[str, Kind]:
    """Return every kind of this package by name.

    :raises ValueError: if two kinds have one name.
    """
    found: dict[str, Kind] = {}
    for module in pkgutil.iter_modules(__path__):
        for kind in getattr(importlib.import_module(f"{__name__}.{module.name}"), "KINDS", ()):
            if kind.name in found:
                raise ValueError(f"two kinds are called {kind.name}")
            found[kind.name] = kind
    return found


KINDS: Mapping[str, Kind] = find_kinds()
