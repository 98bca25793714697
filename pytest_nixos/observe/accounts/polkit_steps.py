"""Steps of polkit's rules: the statements and expressions of JavaScript, one after the other.

Only what rules are written in is run, on values of this module's own and within a number of steps;
what it does not know, such as a program that a rule starts, is :class:`Unclear`, never an answer. A
guest's text reaches nothing of this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from pytest_nixos.observe.accounts.polkit_nodes import (
    hoisted,
    is_same_nothing,
    number_of,
    parameters_of,
    part,
    parts_of,
    pattern_of,
    string_of,
    template_of,
    text_of,
)
from pytest_nixos.observe.accounts.polkit_values import (
    Break,
    Continue,
    Return,
    Run,
    Scope,
    Thrown,
    Unclear,
    binary,
    call_method,
    member,
    truthy,
    type_of,
)

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["FUNCTIONS", "Function", "run_block"]

Value: TypeAlias = Any
_MOST_DEPTH = 40
_CONSTANTS = {"true": True, "false": False, "null": None, "undefined": None}
#: Nodes of functions that are run.
FUNCTIONS = ("function_expression", "function", "arrow_function", "function_declaration")
_LOGICAL = ("&&", "||", "??")


class Function(msgspec.Struct, frozen=True):
    """A function that a rule defines."""

    node: Node
    scope: Scope
    run: Run

    def __call__(self, *arguments: Value) -> Value:
        """Call it.

        :raises Unclear: where it asks for what is not known here.
        """
        return _call(self, arguments)

    def start(self, *arguments: Value) -> Value:
        """Call it with all steps left; raises as a call does."""
        self.run.begin()
        try:
            return _call(self, arguments)
        except RecursionError:
            raise Unclear("what is deep within others") from None


def _call(function: Function, arguments: Sequence[Value]) -> Value:
    run = function.run
    run.step()
    run.depth += 1
    if run.depth > _MOST_DEPTH:
        raise Unclear("what it comes to after many calls")
    names = parameters_of(function.node)
    given = [*arguments, *[None] * len(names)]
    body = part(function.node, "body")
    if body.id not in run.hoisted:
        run.hoisted[body.id] = body, hoisted(body)
    own = dict.fromkeys(run.hoisted[body.id][1])
    scope = Scope({**own, **dict(zip(names, given, strict=False))}, function.scope)
    try:
        if body.type != "statement_block":
            return _value(body, scope, run)
        run_block(body, scope, run)
    except Return as done:
        return done.value
    finally:
        run.depth -= 1
    return None


def run_block(node: Node, scope: Scope, run: Run) -> None:
    """Run the statements of a file or a block."""
    for child in node.named_children:
        # Functions can be called above their declaration.
        if child.type == "function_declaration":
            scope.values[text_of(part(child, "name"))] = Function(child, scope, run)
    for child in node.named_children:
        _statement(child, scope, run)


def _statement(node: Node, scope: Scope, run: Run) -> None:
    run.step()
    do = _STATEMENTS.get(node.type)
    if do is None:
        raise Unclear(f"what a {node.type.replace('_', ' ')} does")
    do(node, scope, run)


def _declare(node: Node, scope: Scope, run: Run) -> None:
    for declared in parts_of(node):
        name, value = part(declared, "name"), declared.child_by_field_name("value")
        if name.type != "identifier":
            raise Unclear("what a declaration takes apart")
        if value is not None:
            scope.values[text_of(name)] = _value(value, scope, run)
        elif node.type == "lexical_declaration":
            scope.values[text_of(name)] = None
        else:
            scope.values.setdefault(text_of(name))


def _if(node: Node, scope: Scope, run: Run) -> None:
    if _holds(part(node, "condition"), scope, run):
        _statement(part(node, "consequence"), scope, run)
    elif (other := node.child_by_field_name("alternative")) is not None:
        _statement(parts_of(other)[0], scope, run)


def _return(node: Node, scope: Scope, run: Run) -> None:
    given = parts_of(node)
    raise Return(_value(given[0], scope, run) if given else None)


def _for(node: Node, scope: Scope, run: Run) -> None:
    begin, test, step = (
        node.child_by_field_name(n) for n in ("initializer", "condition", "increment")
    )
    if begin is not None and begin.type.endswith("declaration"):
        _statement(begin, scope, run)
    elif begin is not None and begin.type not in ("empty_statement", ";"):
        _expression(begin, scope, run)
    while test is None or test.type in ("empty_statement", ";") or _holds(test, scope, run):
        if not _round(node, scope, run):
            return
        if step is not None:
            _value(step, scope, run)


def _while(node: Node, scope: Scope, run: Run) -> None:
    while _holds(part(node, "condition"), scope, run):
        if not _round(node, scope, run):
            return


def _for_in(node: Node, scope: Scope, run: Run) -> None:
    name, over = part(node, "left"), _value(part(node, "right"), scope, run)
    words = {text_of(child) for child in node.children}
    if name.type != "identifier" or not isinstance(over, list | dict):
        raise Unclear("what a loop goes over")
    keys = [str(n) for n in range(len(over))] if isinstance(over, list) else list(over)
    for each in list(over) if "of" in words and isinstance(over, list) else keys:
        scope.values[text_of(name)] = each
        if not _round(node, scope, run):
            return


def _round(node: Node, scope: Scope, run: Run) -> bool:
    """Run a loop's body once; say whether the loop goes on."""
    run.step()
    try:
        _statement(part(node, "body"), scope, run)
    except Break:
        return False
    except Continue:
        return True
    return True


def _switch(node: Node, scope: Scope, run: Run) -> None:
    value = _value(part(node, "value"), scope, run)
    cases = parts_of(part(node, "body"))
    found = next(
        (
            n
            for n, case in enumerate(cases)
            if case.type == "switch_case"
            and binary("===", value, _value(part(case, "value"), scope, run))
        ),
        next((n for n, case in enumerate(cases) if case.type == "switch_default"), len(cases)),
    )
    try:
        for case in cases[found:]:
            for child in case.children_by_field_name("body"):
                _statement(child, scope, run)
    except Break:
        return


def _throw(_: Node, __: Scope, ___: Run) -> None:
    raise Thrown


def _try(node: Node, scope: Scope, run: Run) -> None:
    handler = node.child_by_field_name("handler")
    if handler is None or node.child_by_field_name("finalizer") is not None:
        raise Unclear("what a try statement does")
    try:
        run_block(part(node, "body"), scope, run)
    except Thrown:
        run_block(part(handler, "body"), scope, run)


def _leave(node: Node, _: Scope, __: Run) -> None:
    if node.named_children:
        raise Unclear("where a label leads")
    raise Break if node.type == "break_statement" else Continue


def _expression(node: Node, scope: Scope, run: Run) -> None:
    for child in parts_of(node):
        _value(child, scope, run)


def _nothing(_: Node, __: Scope, ___: Run) -> None:
    """Do nothing: a comment, an empty statement, a declaration that was made."""


_STATEMENTS: Mapping[str, Callable[[Node, Scope, Run], None]] = {
    "break_statement": _leave,
    "comment": _nothing,
    "continue_statement": _leave,
    "empty_statement": _nothing,
    "expression_statement": _expression,
    "for_in_statement": _for_in,
    "for_statement": _for,
    "function_declaration": _nothing,
    "if_statement": _if,
    "lexical_declaration": _declare,
    "return_statement": _return,
    "statement_block": run_block,
    "switch_statement": _switch,
    "throw_statement": _throw,
    "try_statement": _try,
    "variable_declaration": _declare,
    "while_statement": _while,
}


def _holds(node: Node, scope: Scope, run: Run) -> bool:
    inner = parts_of(node)[0] if node.type == "expression_statement" else node
    loose = run.trace.loose
    return run.trace.decide(truthy(_value(inner, scope, run)), loose)


def _value(node: Node, scope: Scope, run: Run) -> Value:
    run.step()
    find = _VALUES.get(node.type)
    if find is None:
        raise Unclear(f"what a {node.type.replace('_', ' ')} is")
    return find(node, scope, run)


def _object(node: Node, scope: Scope, run: Run) -> Value:
    found = {}
    for pair in parts_of(node):
        if pair.type != "pair":
            raise Unclear("what an object holds")
        key = part(pair, "key")
        name = string_of(key) if key.type == "string" else text_of(key)
        found[name] = _value(part(pair, "value"), scope, run)
    return found


def _operation(node: Node, scope: Scope, run: Run) -> Value:
    left, operator, right = (part(node, n) for n in ("left", "operator", "right"))
    word = text_of(operator)
    loose = run.trace.loose
    value = _value(left, scope, run)
    if word not in _LOGICAL:
        other = _value(right, scope, run)
        if value is None and other is None and word in ("===", "!=="):
            return is_same_nothing(left, right) == (word == "===")
        return binary(word, value, other)
    if word == "??":
        return _value(right, scope, run) if value is None else value
    holds = run.trace.decide(truthy(value), loose)
    if holds == (word == "&&"):
        return _value(right, scope, run)
    return value if holds == truthy(value) else holds


def _unary(node: Node, scope: Scope, run: Run) -> Value:
    value = _value(part(node, "argument"), scope, run)
    word = text_of(part(node, "operator"))
    if word == "!":
        return not truthy(value)
    if word == "typeof":
        return type_of(value)
    if word == "-" and isinstance(value, int | float):
        return -value
    raise Unclear(f"what {word} makes of a value")


def _choice(node: Node, scope: Scope, run: Run) -> Value:
    holds = _holds(part(node, "condition"), scope, run)
    return _value(part(node, "consequence" if holds else "alternative"), scope, run)


def _assign(node: Node, scope: Scope, run: Run) -> Value:
    left = part(node, "left")
    if left.type != "identifier":
        raise Unclear("what is assigned to a member")
    loose = run.trace.loose
    value = _value(part(node, "right"), scope, run)
    run.trace.is_kept = run.trace.is_kept or run.trace.loose > loose
    if text_of(left) == "polkit":
        raise Unclear("what polkit is")
    try:
        holder = scope.holder(text_of(left))
    except Unclear:
        holder = scope.outermost.values
    if node.type == "augmented_assignment_expression":
        operator = text_of(part(node, "operator")).removesuffix("=")
        value = binary(operator, scope.holder(text_of(left))[text_of(left)], value)
    holder[text_of(left)] = value
    return value


def _update(node: Node, scope: Scope, _: Run) -> Value:
    name = text_of(part(node, "argument"))
    holder = scope.holder(name)
    by = 1 if text_of(part(node, "operator")) == "++" else -1
    before, holder[name] = holder[name], binary("+", holder[name], by)
    return before if node.children[0].type == "identifier" else holder[name]


def _member(node: Node, scope: Scope, run: Run) -> Value:
    return member(_value(part(node, "object"), scope, run), text_of(part(node, "property")))


def _subscript(node: Node, scope: Scope, run: Run) -> Value:
    value = _value(part(node, "object"), scope, run)
    return member(value, _value(part(node, "index"), scope, run))


def _calling(node: Node, scope: Scope, run: Run) -> Value:
    called, listed = part(node, "function"), part(node, "arguments")
    if listed.type != "arguments":
        raise Unclear("what a tagged text is")
    if called.type != "member_expression":
        function = _value(called, scope, run)
        given = [_value(n, scope, run) for n in parts_of(listed)]
        if callable(function):
            return function(*given)
        raise Unclear(f"what {text_of(called)[:40]} does")
    owner = _value(part(called, "object"), scope, run)
    given = [_value(n, scope, run) for n in parts_of(listed)]
    if run.duktape and isinstance(owner, list) and text_of(part(called, "property")) == "includes":
        raise Thrown
    run.step(len(owner) if isinstance(owner, str | list) else 1)
    return call_method(owner, text_of(part(called, "property")), given)


def _last(node: Node, scope: Scope, run: Run) -> Value:
    return [_value(child, scope, run) for child in parts_of(node)][-1]


def _name(node: Node, scope: Scope, _: Run) -> Value:
    return scope.holder(text_of(node))[text_of(node)]


_VALUES: Mapping[str, Callable[[Node, Scope, Run], Value]] = {
    "array": lambda node, scope, run: [_value(child, scope, run) for child in parts_of(node)],
    "assignment_expression": _assign,
    "augmented_assignment_expression": _assign,
    "binary_expression": _operation,
    "call_expression": _calling,
    "identifier": _name,
    "member_expression": _member,
    "number": lambda node, _, __: number_of(node),
    "object": _object,
    "parenthesized_expression": _last,
    "regex": lambda node, _, __: pattern_of(node),
    "sequence_expression": _last,
    "string": lambda node, _, __: string_of(node),
    "subscript_expression": _subscript,
    "template_string": lambda node, _, __: template_of(node),
    "ternary_expression": _choice,
    "unary_expression": _unary,
    "update_expression": _update,
    **dict.fromkeys(FUNCTIONS, Function),
    **{name: (lambda node, _, __: _CONSTANTS[node.type]) for name in _CONSTANTS},
}
