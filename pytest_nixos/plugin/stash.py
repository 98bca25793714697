"""Keys under which this plugin keeps its state in pytest's stashes."""

from __future__ import annotations

import pytest

from pytest_nixos.findings import Evidence
from pytest_nixos.plugin.progress import Narrator
from pytest_nixos.plugin.session import NixosSession

__all__ = ["EVIDENCE", "NARRATOR", "SESSION"]

SESSION = pytest.StashKey[NixosSession]()
NARRATOR = pytest.StashKey[Narrator]()
EVIDENCE = pytest.StashKey[Evidence]()
