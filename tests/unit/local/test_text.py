"""What strangers wrote reaches no terminal as it came."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from pytest_nixos.local.text import one_line, printable, printable_lines, without_escapes

EVERYTHING = "".join(map(chr, range(sys.maxunicode + 1)))
ACTED_UPON = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}


def test_no_character_that_a_terminal_acts_upon_is_printable() -> None:
    shown = printable(EVERYTHING)
    assert len(shown) == len(EVERYTHING)
    assert {c for c in shown if unicodedata.category(c) in ACTED_UPON} == {"\t"}


def test_what_is_no_character_breaks_no_document() -> None:
    shown = printable("a\uffff\ufffe\ufdd0\U0010ffffb")
    assert shown == "a" + "\N{REPLACEMENT CHARACTER}" * 4 + "b"
    assert set(printable(EVERYTHING)).isdisjoint(chr(p) for p in range(0xFDD0, 0xFDF0))


def test_what_people_write_stays() -> None:
    text = "sshd: größer, 日本語, 🦀 \\ <b> & \" '"
    assert printable(text) == text == one_line(text) == without_escapes(text)


@pytest.mark.parametrize(
    "evil",
    [
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x9b31m",
        "\x9d0;title\x9c",
        "\u202eevil",
        "\u2066x\u2069",
        "\u200b",
        "\ufeff",
        "a\rb",
        "\x08\x7f",
        "a\u2028b",
    ],
)
def test_evil_is_shown_and_not_obeyed(evil: str) -> None:
    for shown in (printable(evil), printable_lines(evil), one_line(evil)):
        assert all(unicodedata.category(c) not in ACTED_UPON for c in shown)


def test_lines_stay_lines() -> None:
    assert printable_lines("a\x1b\nb\tc\n") == "a\ufffd\nb\tc\n"


def test_without_escapes_leaves_what_was_meant() -> None:
    text = "\x1b[0;32m  OK  \x1b[0m\x1b]3008;x\x1b\\Started\x1b%G \x9bsshd\x00.\n"
    assert without_escapes(text) == "  OK  Started sshd.\n"


def test_one_line_is_one_line() -> None:
    assert one_line(" a\r\n\tb\x00\x1bc \u2028 d ") == "a b c d"
