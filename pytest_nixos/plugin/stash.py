"""Keys under which this plugin keeps its state in pytest's stashes."""

from __future__ import annotations

import pytest

from pytest_nixos.findings import Evidence
from pytest_nixos.plugin.machines.upgrade import Upgrades
from pytest_nixos.plugin.progress import Narrator
from pytest_nixos.plugin.session import NixosSession

__all__ = ["EVIDENCE", "NARRATOR", "SESSION", "UPGRADES"]

SESSION = pytest.StashKey[NixosSession]()
NARRATOR = pytest.StashKey[Narrator]()
UPGRADES = pytest.StashKey[Upgrades]()
EVIDENCE = pytest.StashKey[Evidence]()
