"""The compiled catalogue is what the TOML files say, and never what they said."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from pathlib import Path

import pytest

from pytest_nixos.nix.command.cache import EvaluationCache
from pytest_nixos.standards.bundled import read_folder
from pytest_nixos.standards.compile_toml import FOLDERS, compile_folder, compiled_name
from pytest_nixos.standards.format import CatalogueFile, Entry, FrameworkFile, ProfileFile

STANDARDS = Path(__file__).parents[3] / "pytest_nixos/standards"
KINDS: dict[str, type[Entry]] = {
    "catalogue": CatalogueFile,
    "frameworks": FrameworkFile,
    "profiles": ProfileFile,
}


@pytest.fixture
def standards(tmp_path: Path) -> Path:
    for folder in FOLDERS:
        shutil.copytree(STANDARDS / folder, tmp_path / "standards" / folder)
    return tmp_path / "standards"


@pytest.fixture
def cache(tmp_path: Path) -> EvaluationCache:
    return EvaluationCache(directory=tmp_path / "cache")


def forbid_toml(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise AssertionError("TOML was parsed")

    monkeypatch.setattr(tomllib, "loads", refuse)


@pytest.mark.parametrize("folder", FOLDERS)
def test_second_reading_parses_no_toml_and_says_the_same(
    folder: str, standards: Path, cache: EvaluationCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_folder(standards, folder, KINDS[folder], cache)
    assert len(first) > 5
    forbid_toml(monkeypatch)
    assert read_folder(standards, folder, KINDS[folder], cache) == first


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_a_wheel_brings_says_the_same(
    folder: str, standards: Path, cache: EvaluationCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = read_folder(standards, folder, KINDS[folder], cache)
    shutil.rmtree(cache.directory)
    compile_folder(standards, folder)
    forbid_toml(monkeypatch)
    assert read_folder(standards, folder, KINDS[folder], cache) == parsed
    assert not cache.directory.exists()


def test_a_changed_file_is_read_anew(standards: Path, cache: EvaluationCache) -> None:
    compile_folder(standards, "profiles")
    read_folder(standards, "profiles", ProfileFile, cache)
    file = standards / "profiles/baseline.toml"
    # As long as before, and as old: neither length nor time is what counts.
    times = (file.stat().st_atime, file.stat().st_mtime)
    text = file.read_text()
    title = tomllib.loads(text)["title"]
    file.write_text(text.replace(title, title.upper(), 1))
    os.utime(file, times)
    again = dict(read_folder(standards, "profiles", ProfileFile, cache))
    assert again[file].title == title.upper() != title


def test_a_new_file_is_read(standards: Path, cache: EvaluationCache) -> None:
    compile_folder(standards, "profiles")
    before = read_folder(standards, "profiles", ProfileFile, cache)
    shutil.copy(standards / "profiles/baseline.toml", standards / "profiles/zz.toml")
    after = read_folder(standards, "profiles", ProfileFile, cache)
    assert len(after) == len(before) + 1


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"key": "x", "content": {}})])
def test_a_broken_document_of_a_wheel_is_not_used(
    text: str, standards: Path, cache: EvaluationCache
) -> None:
    right = read_folder(standards, "profiles", ProfileFile, cache)
    (standards / compiled_name("profiles")).write_text(text)
    assert read_folder(standards, "profiles", ProfileFile, cache) == right


def test_works_where_nothing_can_be_kept(standards: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    nowhere = EvaluationCache(directory=tmp_path / "file/cache")
    assert read_folder(standards, "profiles", ProfileFile, nowhere)
