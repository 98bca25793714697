"""polkit's rules are JavaScript: what a file of them registers, found by running it. Parsed by
tree-sitter-javascript.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec.structs import replace

from pytest_nixos.observe.accounts.polkit_nodes import string_of, text_of
from pytest_nixos.observe.accounts.polkit_steps import FUNCTIONS, Function, run_block
from pytest_nixos.observe.accounts.polkit_values import (
    Break,
    Continue,
    Given,
    Return,
    Run,
    Scope,
    Thrown,
    Unclear,
)

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

__all__ = ["Script", "can_say_yes", "run_script"]

Value: TypeAlias = Any


#: Nodes of what Duktape 2.7 does not read: a file that holds one is none for it.
_DUKTAPE_LACKS: Mapping[str, str] = {
    "arrow_function": "arrow functions",
    "assignment_pattern": "default values",
    "async": "asynchronous functions",
    "await_expression": "asynchronous functions",
    "class_declaration": "classes",
    "class": "classes",
    "generator_function": "generators",
    "generator_function_declaration": "generators",
    "let": "let",
    "of": "for-of loops",
    "optional_chain": "optional chaining",
    "rest_pattern": "rest parameters",
    "spread_element": "spread",
    "template_string": "template strings",
    "array_pattern": "destructuring",
    "object_pattern": "destructuring",
    "??": "the operator ??",
    "??=": "the operator ??=",
    "&&=": "the operator &&=",
    "||=": "the operator ||=",
}
#: Nodes that tree-sitter reads and no engine does in a script.
_NO_SCRIPT: Mapping[str, str] = {
    "decorator": "decorators",
    "export_statement": "exports",
    "import_statement": "imports",
    "jsx_element": "markup",
    "jsx_self_closing_element": "markup",
}
_OWN_RETURNS = (*FUNCTIONS, "method_definition", "generator_function_declaration")
_FLAGS_OF_DUKTAPE = frozenset("gim")
#: What it reads in part: whether it takes such a file is not known here.
_DUKTAPE_PERHAPS = frozenset(
    {
        "method_definition",
        "shorthand_property_identifier",
        "computed_property_name",
        "**",
        "hash_bang_line",
    }
)
#: What a rule returns that can be no yes.
_NO_YES = re.compile(
    r"polkit\.Result\.(?:NO|NOT_HANDLED|AUTH_\w+)|null|undefined|false|([\"'])(?:no|auth_\w+)?\1"
)


class Script(msgspec.Struct, frozen=True):
    """What one file registers.

    :param name: its name.
    :param rules: functions given to ``polkit.addRule``, in order.
    :param admin_rules: those given to ``polkit.addAdminRule``.
    :param texts: every text that it holds, the plain parts of its regular expressions too.
    :param has_patterns: whether it holds regular expressions.
    :param unclear: what could not be told while it was read, ``""`` for nothing.
    :param not_read: what the machine's engine does not read in it, so that it registers nothing.
    """

    name: str
    rules: list[Value] = msgspec.field(default_factory=list)
    admin_rules: list[Value] = msgspec.field(default_factory=list)
    texts: frozenset[str] = frozenset()
    has_patterns: bool = False
    unclear: str = ""
    not_read: str = ""


def run_script(
    name: str, source: str, scope: Scope, result: Mapping[str, Value], run: Run
) -> Script:
    """Run a file of rules, as polkitd does when it starts.

    :param scope: what the files before it declared: all share it.
    :param result: ``polkit.Result``.
    :param run: the steps that it and its rules may take, and the engine.
    """
    root = _parser().parse(source.encode()).root_node
    nodes = list(_all_nodes(root))
    patterns = [text_of(node) for node in nodes if node.type == "regex_pattern"]
    pieces = {piece for text in patterns for piece in re.findall(r"[\w@:./-]+", _plain(text))}
    script = Script(
        name=name,
        texts=frozenset(string_of(node) for node in nodes if node.type == "string") | pieces,
        has_patterns=bool(patterns),
    )
    if root.has_error:
        line = min((n.start_point[0] + 1 for n in nodes if n.is_error or n.is_missing), default=1)
        text = source.splitlines()[line - 1].strip() if source.splitlines() else ""
        return replace(
            script, unclear=f"it is no JavaScript that can be read (line {line}: {text})"
        )
    if lacking := _lacking(nodes, duktape=run.duktape):
        return replace(script, not_read=", ".join(sorted(lacking)))
    if run.duktape and _DUKTAPE_PERHAPS & {node.type for node in nodes}:
        script = replace(script, unclear="whether polkit's Duktape reads it is not known")
    polkit = Given(
        addRule=script.rules.append,
        addAdminRule=script.admin_rules.append,
        log=lambda *_: None,
        Result=Given(result),
    )
    scope.values["polkit"] = polkit
    try:
        run.begin()
        run_block(root, scope, run)
    except Unclear as err:
        return replace(script, unclear=f"{err} is not known")
    except Thrown:
        return script
    except (Break, Continue, Return, RecursionError):
        return replace(script, unclear="where it ends is not known")
    if scope.values["polkit"] is not polkit:
        return replace(script, unclear="what polkit is is not known")
    return script


def _lacking(nodes: Sequence[Node], *, duktape: bool) -> set[str]:
    """Return what makes an engine refuse a file, in words."""
    words = {**_NO_SCRIPT, **(_DUKTAPE_LACKS if duktape else {})}
    found = {words[node.type] for node in nodes if node.type in words}
    if _returns(nodes[0]):
        found.add("a return outside of functions")
    for node in nodes if duktape else ():
        if node.type == "regex_flags" and set(text_of(node)) - _FLAGS_OF_DUKTAPE:
            found.add("newer flags of patterns")
        elif node.type == "regex_pattern" and "(?<" in text_of(node):
            found.add("newer patterns")
        elif node.type == "catch_clause" and node.child_by_field_name("parameter") is None:
            found.add("catch without a name")
    return found


def _returns(root: Node) -> bool:
    """Say whether a file holds a return that is in none of its functions."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.type == "return_statement":
            return True
        if node.type not in _OWN_RETURNS:
            waiting.extend(node.named_children)
    return False


def can_say_yes(rule: Value) -> bool:
    """Say whether a rule that cannot be followed may answer yes: each answer that is written in it
    is another one.
    """
    if not isinstance(rule, Function):
        return True
    body = rule.node.child_by_field_name("body")
    if body is None or body.type != "statement_block":
        return True
    returned = (n.named_children for n in _all_nodes(body) if n.type == "return_statement")
    return any(values and not _NO_YES.fullmatch(text_of(values[0])) for values in returned)


def _plain(pattern: str) -> str:
    r"""Return a pattern without its escapes: ``\.`` is a dot, the class ``\w`` is nothing."""
    return re.sub(r"\\(\W)|\\\w", lambda m: m[1] or " ", pattern)


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
        waiting.extend(node.children)
