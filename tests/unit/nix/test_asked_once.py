"""Answers that each question gets once."""

from __future__ import annotations

import pickle

import pytest

from pytest_nixos.nix.asked_once import AskedOnce


def test_an_answer_is_kept_and_a_failure_is_none() -> None:
    asked = AskedOnce()
    with pytest.raises(ZeroDivisionError):
        asked.of("a", lambda: str(1 // 0))
    assert asked.of("a", lambda: "first") == "first"
    assert asked.of("a", lambda: "second") == "first"
    assert asked.of("b", lambda: "other") == "other"


def test_workers_get_the_answers() -> None:
    asked = AskedOnce()
    asked.of("a", lambda: "first")
    copy = pickle.loads(pickle.dumps(asked))
    assert copy.of("a", lambda: "second") == "first"
    assert pickle.loads(pickle.dumps(AskedOnce())).of("a", lambda: "x") == "x"
