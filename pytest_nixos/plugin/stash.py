"""Keys under which this plugin keeps its state in pytest's stashes."""

from __future__ import annotations

import pytest

from pytest_nixos.findings import Evidence
from pytest_nixos.plugin.progress import Progress
from pytest_nixos.plugin.session import NixosSession

__all__ = ["EVIDENCE", "PROGRESS", "SESSION"]

SESSION = pytest.StashKey[NixosSession]()
PROGRESS = pytest.StashKey[Progress]()
EVIDENCE = pytest.StashKey[Evidence]()
