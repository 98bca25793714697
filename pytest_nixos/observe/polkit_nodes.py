"""Nodes of JavaScript, as tree-sitter gives them: their parts and their texts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_nixos.observe.polkit_values import Unclear

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["parameters_of", "part", "parts_of", "string_of", "text_of"]

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0"}


def string_of(node: Node) -> str:
    """Return the text that a string literal is."""
    body = text_of(node)[1:-1]
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), body)


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
