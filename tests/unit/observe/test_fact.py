"""Facts: many short scripts in one probe, each with a value of its own."""

from __future__ import annotations

import re

import pytest

from pytest_nixos.observe.accounts.account import ACCOUNT_FACTS
from pytest_nixos.observe.fact import Fact, Lacking, fact_probe
from pytest_nixos.observe.filesystems.scan import SCAN_FACTS
from pytest_nixos.observe.filesystems.storage import STORAGE_FACTS
from pytest_nixos.observe.generation import GENERATION_FACTS
from pytest_nixos.observe.text import lines
from tests.unit.observe.here import ask

FACTS = {
    "account": ACCOUNT_FACTS,
    "generation": GENERATION_FACTS,
    "scan": SCAN_FACTS,
    "storage": STORAGE_FACTS,
}


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


def test_a_fact_without_a_subshell_ends_itself_alone() -> None:
    facts = {
        "lacking": Fact(script="return 3", parse=lines, about="x", inline=True),
        "broken": Fact(script="echo half; return 7", parse=lines, about="x", inline=True),
        "toolless": Fact(
            script="echo a", parse=lines, about="x", inline=True, needs=("no-such-program",)
        ),
        "good": Fact(script="local x=b; echo a; echo $x", parse=lines, about="x", inline=True),
        "apart": Fact(script="echo $x; exit 0", parse=lines, about="x"),
    }
    assert ask(fact_probe("kind", facts, list(facts))) == {
        "lacking": Lacking("the machine has nothing of the sort"),
        "good": ["a", "b"],
        "apart": [],
    }


@pytest.mark.parametrize("kind", sorted(FACTS))
def test_no_fact_without_a_subshell_ends_or_changes_the_probe(kind: str) -> None:
    changing = re.compile(r"\b(exit|exec|export|shopt|trap|set [-+]|PATH=|IFS=(?!:? read))")
    for name, fact in FACTS[kind].items():
        assert not (fact.inline and changing.search(fact.script)), name


def test_a_fact_that_prints_like_the_frame_does_not_forge_another() -> None:
    facts = {
        "loud": Fact(script=r"printf 'x\0360\036secret\n1'", parse=lines, about="x"),
        "secret": Fact(script="exit 7", parse=lines, about="x"),
    }
    assert "secret" not in ask(fact_probe("kind", {"loud": facts["loud"]}, ["loud"]))
