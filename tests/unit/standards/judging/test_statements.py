"""Remedies are taken apart where one statement ends, whatever their strings and comments hold."""

from __future__ import annotations

import pytest

from pytest_nixos.standards.judging.statements import statements


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a = 1;\nb = 2;", ["a = 1;", "b = 2;"]),
        ("a = {\n  b = 1;\n};\nc = 2; # d", ["a = {\n  b = 1;\n};", "c = 2; # d"]),
        ("a = ''\n  it's; ''' ''$x; ''\\n\n'';\nb = 1;", None),
        ('a = "x;\\"\ny;\n";\nb = 1;', None),
        ("# a comment; \" '' {\nb = 1;", ["# a comment; \" '' {", "b = 1;"]),
        ("a = [ \"}\" '']'' ];\nb = 1;", ["a = [ \"}\" '']'' ];", "b = 1;"]),
        ("a = x' ;\nb = 1;", ["a = x' ;", "b = 1;"]),
        ("a = 1\n;\nb", ["a = 1\n;", "b"]),
    ],
)
def test_a_statement_ends_where_nothing_is_open(text: str, parts: list[str] | None) -> None:
    expected = [text.removesuffix("\nb = 1;"), "b = 1;"] if parts is None else parts
    assert [statement.text for statement in statements(text)] == expected
