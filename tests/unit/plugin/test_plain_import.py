"""Modules that Python has unloaded are not found by their package's attribute."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from pytest_nixos.plugin.plain_import import forget_unloaded


def test_only_what_is_unloaded_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("pytest_nixos.pretended")
    package.__path__ = []
    loaded, unloaded = (ModuleType(f"pytest_nixos.pretended.{name}") for name in ("on", "off"))
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, loaded.__name__, loaded)
    vars(package).update(on=loaded, off=unloaded, other=sys)

    forget_unloaded()

    assert vars(package)["on"] is loaded and vars(package)["other"] is sys
    assert "off" not in vars(package)
