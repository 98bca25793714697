"""Facts: many short scripts in one probe, each with a value of its own."""

from __future__ import annotations

from pytest_nixos.observe.fact import Fact, Lacking, fact_probe
from pytest_nixos.observe.text import lines
from tests.unit.observe.here import ask


def test_facts_come_back_by_name_with_what_is_lacking_and_what_failed() -> None:
    facts = {
        "good": Fact(script="echo a; echo; echo ' b '", parse=lines, about="x"),
        "lacking": Fact(script="exit 3", parse=lines, about="x", lacking="no such thing"),
        "broken": Fact(script="echo half; exit 7", parse=lines, about="x"),
        "toolless": Fact(script="echo a", parse=lines, about="x", needs=("no-such-program",)),
        "empty": Fact(script="true", parse=lines, about="x", needs=("bash",)),
    }
    assert ask(fact_probe("kind", facts, list(facts))) == {
        "good": ["a", "b"],
        "lacking": Lacking("no such thing"),
        "empty": [],
    }


def test_a_fact_that_prints_like_the_frame_does_not_forge_another() -> None:
    facts = {
        "loud": Fact(script=r"printf 'x\0360\036secret\n1'", parse=lines, about="x"),
        "secret": Fact(script="exit 7", parse=lines, about="x"),
    }
    assert "secret" not in ask(fact_probe("kind", {"loud": facts["loud"]}, ["loud"]))
