import os
import stat
import time
from pathlib import Path

import pytest

from pytest_nixos.nix.command.cache import (
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


def test_what_another_user_can_have_written_is_not_believed(
    cache: EvaluationCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(KEY, {"x": 1})
    (file,) = cache.directory.iterdir()
    for path, mode in ((file, 0o620), (cache.directory, 0o770)):
        was = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode)
        assert cache.get(KEY) is None
        path.chmod(was)
    assert cache.get(KEY) == {"x": 1}
    target = file.rename(cache.directory / "elsewhere")
    file.symlink_to(target)
    assert cache.get(KEY) is None
    file.unlink()
    target.rename(file)
    monkeypatch.setattr("os.geteuid", lambda: 4242)
    assert cache.get(KEY) is None


def test_what_is_not_used_for_long_goes(tmp_path: Path) -> None:
    cache = EvaluationCache(directory=tmp_path / "cache", most_age_s=60)
    old, used = evaluation_key({"a": "old"}), evaluation_key({"a": "used"})
    cache.put(old, {"x": 1})
    cache.put(used, {"x": 2})
    for key, age_s in ((old, 61), (used, 59)):
        at_s = time.time() - age_s
        os.utime(cache.directory / f"{key}.json", (at_s, at_s))
    assert cache.get(old) is None
    assert cache.get(used) == {"x": 2}
    cache.put(KEY, {"x": 3})
    assert not (cache.directory / f"{old}.json").exists()
    assert time.time() - (cache.directory / f"{used}.json").stat().st_mtime < 30
