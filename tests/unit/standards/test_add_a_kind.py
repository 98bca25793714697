"""The how-to about kinds of control, followed to the letter."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.generate.controls import pages
from pytest_nixos.standards import kinds
from pytest_nixos.standards.load import Catalogue, load_catalogue
from tests.unit.how_to import Guide, follow

PROBE = Guide("add-a-probe.md")
GUIDE = Guide("add-a-kind-of-control.md")
TEST = "tests/unit/standards/test_core_dump.py"


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    follow(PROBE, "pytest_nixos/observe/coredump.py", tmp_path, monkeypatch)
    follow(GUIDE, "pytest_nixos/standards/kinds/coredump.py", tmp_path, monkeypatch)
    found = kinds.find_kinds()
    assert set(found) - set(kinds.KINDS) == {"core-dump"}
    monkeypatch.setitem(kinds.KINDS, "core-dump", found["core-dump"])
    (tmp_path / "catalogue").mkdir()
    (tmp_path / "catalogue/core-dumps.toml").write_text(GUIDE.files["catalogue/core-dumps.toml"])
    return load_catalogue([tmp_path / "catalogue"])


@pytest.mark.parametrize("name", GUIDE.tests(TEST))
def test_the_pages_own_test(catalogue: Catalogue, name: str) -> None:
    GUIDE.run(TEST, name, catalogue=catalogue)


def test_the_kind_is_listed_with_the_others(catalogue: Catalogue) -> None:
    assert "| `core-dump` | core dumps that are kept" in pages(catalogue, {})["format.md"]


def test_what_the_page_adds_is_not_here_already() -> None:
    assert "core-dump" not in kinds.find_kinds()
