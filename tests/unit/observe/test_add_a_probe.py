"""The how-to about probes, followed to the letter."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.unit.how_to import Guide, follow

GUIDE = Guide("add-a-probe.md")


@pytest.fixture
def followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow(GUIDE, "pytest_nixos/observe/coredump.py", tmp_path, monkeypatch)


@pytest.mark.usefixtures("followed")
@pytest.mark.parametrize("name", GUIDE.tests("tests/unit/observe/test_coredump.py"))
def test_the_pages_own_test(name: str, tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    GUIDE.run("tests/unit/observe/test_coredump.py", name, tmp_path=tmp_path / "place")


@pytest.mark.usefixtures("followed")
def test_the_probe_is_called_as_the_page_says() -> None:
    module = sys.modules["pytest_nixos.observe.coredump"]
    assert module.core_dumps(name="again").name == "again"
