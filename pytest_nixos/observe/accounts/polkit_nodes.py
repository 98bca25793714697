"""Nodes of JavaScript, as tree-sitter gives them: their parts and their texts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_nixos.observe.accounts.polkit_values import Unclear, pattern

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = [
    "hoisted",
    "is_same_nothing",
    "number_of",
    "parameters_of",
    "part",
    "parts_of",
    "pattern_of",
    "string_of",
    "template_of",
    "text_of",
]

_ESCAPE = re.compile(
    r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,8})\}|([0-7]{1,3})|(.|\n))"
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "\n": ""}


def string_of(node: Node) -> str:
    """Return the text that a string literal is."""
    return _ESCAPE.sub(_unescaped, text_of(node)[1:-1])


def _unescaped(found: re.Match[str]) -> str:
    digits = found[1] or found[2] or found[3]
    number = int(digits, 16) if digits else int(found[4], 8) if found[4] else None
    if number is None:
        return _ESCAPES.get(found[5], found[5])
    # A half of a pair is no character of its own.
    return chr(number) if number < 0xD800 or 0xDFFF < number < 0x110000 else "\ufffd"


def parts_of(node: Node) -> list[Node]:
    """Return what a node is made of, comments left out."""
    return [child for child in node.named_children if child.type != "comment"]


def part(node: Node, name: str) -> Node:
    """Return a part of a node.

    :raises Unclear: where it has none of that name.
    """
    found = node.child_by_field_name(name)
    if found is None:
        raise Unclear(f"what a {node.type.replace('_', ' ')} is")
    return found


def text_of(node: Node) -> str:
    """Return a node as it is written."""
    return (node.text or b"").decode(errors="replace")


def parameters_of(node: Node) -> list[str]:
    """Return the names of what a function is given.

    :raises Unclear: where they are more than names.
    """
    single = node.child_by_field_name("parameter")
    listed = node.child_by_field_name("parameters")
    nodes = [single] if single is not None else listed.named_children if listed is not None else []
    nodes = [n for n in nodes if n.type != "comment"]
    if any(n.type != "identifier" for n in nodes):
        raise Unclear("what a function is given")
    return [text_of(n) for n in nodes]


def hoisted(body: Node) -> list[str]:
    """Return the variables that a function's body declares anywhere: they are its own from its
    beginning on.
    """
    found, waiting = [], [body]
    while waiting:
        node = waiting.pop()
        if node.type == "variable_declaration":
            names = [d.child_by_field_name("name") for d in node.named_children]
            found += [text_of(name) for name in names if name is not None]
        if node is body or "function" not in node.type:
            waiting.extend(node.named_children)
    return found


def is_same_nothing(left: Node, right: Node) -> bool:
    """Say whether two values are both null or both undefined, by where they come from."""
    kinds = set()
    for node in (left, right):
        named = node.type == "call_expression" and part(node, "function")
        name = text_of(named).rpartition(".")[2] if named else node.type
        kinds.add({"null": "null", "match": "null", "exec": "null"}.get(name, name))
    if "null" not in kinds or len(kinds) == 1:
        return True
    if kinds & {"undefined", "lookup"}:
        return False
    raise Unclear("whether something is null or undefined")


def template_of(node: Node) -> str:
    """Return the text that a template without values is; raises as :func:`part` does."""
    if any(child.type == "template_substitution" for child in node.named_children):
        raise Unclear("what a text is made of")
    return text_of(node)[1:-1]


def pattern_of(node: Node) -> re.Pattern[str]:
    """Return a regular expression; raises as :func:`part` does."""
    flags = node.child_by_field_name("flags")
    return pattern(text_of(part(node, "pattern")), "" if flags is None else text_of(flags))


def number_of(node: Node) -> int:
    """Return a number; raises as :func:`part` does."""
    try:
        return int(text_of(node), 0)
    except ValueError:
        raise Unclear("what a number is") from None
