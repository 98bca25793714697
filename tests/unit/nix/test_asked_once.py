"""Answers that each question gets once."""

from __future__ import annotations

import pickle
import threading

import pytest

from pytest_nixos.nix.asked_once import AskedAhead, AskedOnce


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


def test_what_is_asked_ahead_is_answered_to_who_wants_it() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def ask() -> str:
        begun.set()
        assert go_on.wait(20)
        return "answer"

    ahead = AskedAhead(ask)
    assert begun.wait(20)  # before anybody takes it
    go_on.set()
    assert ahead.take() == "answer"
    assert ahead.take() == "answer"


def test_what_asking_ahead_raised_is_raised_where_the_answer_is_wanted() -> None:
    ahead = AskedAhead(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        ahead.take()


def test_what_asking_ahead_raised_is_over_for_who_only_waits() -> None:
    ahead = AskedAhead(lambda: 1 // 0)
    ahead.wait()
    with pytest.raises(ZeroDivisionError):
        ahead.take()
