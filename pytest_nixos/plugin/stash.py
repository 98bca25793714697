"""Keys under which this plugin keeps its state in pytest's stashes."""

from __future__ import annotations

import pytest

from pytest_nixos.findings import Evidence
from pytest_nixos.plugin.machines.head_start import HeadStart
from pytest_nixos.plugin.machines.next_fresh import NextFresh
from pytest_nixos.plugin.machines.next_hosts import NextHosts
from pytest_nixos.plugin.progress import Progress
from pytest_nixos.plugin.session import NixosSession

__all__ = ["EVIDENCE", "HEAD_START", "NEXT_FRESH", "NEXT_HOSTS", "PROGRESS", "SESSION"]

SESSION = pytest.StashKey[NixosSession]()
PROGRESS = pytest.StashKey[Progress]()
HEAD_START = pytest.StashKey[HeadStart | None]()
NEXT_FRESH = pytest.StashKey[NextFresh | None]()
NEXT_HOSTS = pytest.StashKey[NextHosts | None]()
EVIDENCE = pytest.StashKey[Evidence]()
