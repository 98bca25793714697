import stat
from pathlib import Path

import pytest

from pytest_nixos.nix.cache import (
    EvaluationCache,
    evaluation_key,
)

KEY = evaluation_key({"a": 1})


@pytest.fixture
def cache(tmp_path: Path) -> EvaluationCache:
    return EvaluationCache(directory=tmp_path / "deep" / "cache")


def test_what_is_put_comes_back(cache: EvaluationCache) -> None:
    assert cache.get(KEY) is None
    cache.put(KEY, {"x": [1, None, "é"]})
    assert cache.get(KEY) == {"x": [1, None, "é"]}


def test_it_is_private_and_leaves_no_other_file(cache: EvaluationCache) -> None:
    cache.put(KEY, {"x": 1})
    (file,) = cache.directory.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.directory.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff\xfe", b"[]", b'{"key": "other", "content": {}}', b"[" * 100_000]
)
def test_a_damaged_file_counts_as_absent(cache: EvaluationCache, damage: bytes) -> None:
    cache.put(KEY, {"x": 1})
    (file,) = cache.directory.iterdir()
    file.write_bytes(damage)
    assert cache.get(KEY) is None
    cache.put(KEY, {"x": 2})
    assert cache.get(KEY) == {"x": 2}


def test_a_directory_that_cannot_be_made_only_costs_speed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = EvaluationCache(directory=tmp_path / "file" / "cache")
    cache.put(KEY, {"x": 1})
    assert cache.get(KEY) is None


def test_a_value_that_is_no_json_is_an_error_and_leaves_nothing(cache: EvaluationCache) -> None:
    with pytest.raises(TypeError):
        cache.put(KEY, {"x": object()})
    assert list(cache.directory.iterdir()) == []


def test_the_key_depends_on_every_part_and_not_on_their_order() -> None:
    assert evaluation_key({"a": 1, "b": 2}) == evaluation_key({"b": 2, "a": 1})
    assert len({KEY, evaluation_key({"a": 2}), evaluation_key({"b": 1})}) == 3
