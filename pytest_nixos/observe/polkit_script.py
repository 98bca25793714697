"""polkit's rules are JavaScript: what a file of them registers, found by running it. Parsed by
tree-sitter-javascript.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_nixos.observe.polkit_steps import Function, run_block, string_of
from pytest_nixos.observe.polkit_values import (
    Break,
    Continue,
    Given,
    Return,
    Run,
    Scope,
    Unclear,
)

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

__all__ = ["Script", "run_script"]

Value: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class Script:
    """What one file registers.

    :param rules: functions given to ``polkit.addRule``, in order.
    :param admin_rules: those given to ``polkit.addAdminRule``.
    :param texts: every text that it holds.
    :param has_patterns: whether it holds regular expressions.
    :param unclear: what could not be told while it was read, ``""`` for nothing.
    """

    rules: list[Function] = field(default_factory=list)
    admin_rules: list[Function] = field(default_factory=list)
    texts: frozenset[str] = frozenset()
    has_patterns: bool = False
    unclear: str = ""


def run_script(source: str, result: Mapping[str, Value], run: Run) -> Script:
    """Run a file of rules, as polkitd does when it starts.

    :param result: ``polkit.Result``.
    :param run: the steps that it and its rules may take.
    """
    root = _parser().parse(source.encode()).root_node
    nodes = list(_all_nodes(root))
    script = Script(
        texts=frozenset(string_of(node) for node in nodes if node.type == "string"),
        has_patterns=any(node.type == "regex" for node in nodes),
    )
    if root.has_error:
        return replace(script, unclear="it is no JavaScript that can be read")
    polkit = Given(
        addRule=script.rules.append,
        addAdminRule=script.admin_rules.append,
        log=lambda *_: None,
        Result=Given(result),
    )
    try:
        run_block(root, Scope({"polkit": polkit}), run)
    except Unclear as err:
        return replace(script, unclear=f"{err} is not known")
    except (Break, Continue, Return):
        return replace(script, unclear="where it ends is not known")
    return script


@cache
def _parser() -> Parser:
    # Loaded where a host has rules: every other run would pay for it.
    import tree_sitter
    import tree_sitter_javascript

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_javascript.language()))


def _all_nodes(root: Node) -> Iterator[Node]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node.named_children)
