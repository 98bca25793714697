"""Where a Nix file binds an option: its attribute sets read as a tree, nothing evaluated.

The module system keeps the file of a definition and not its line. A module's attribute sets are
plain enough to be read: nested sets, dotted paths, ``mkIf`` and its kin, ``imports``, ``let``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["Binding", "bindings", "find_binding"]

_MOST_BYTES = 1 << 20
_DEEPEST = 200
_SETS = ("attrset_expression", "rec_attrset_expression", "let_attrset_expression")
#: Lists of modules, and what nixpkgs' modules call their settings: a path starts anew below.
_MODULES = frozenset({"modules", "imports", "extraModules", "sharedModules", "baseModules"})
#: Modules of another system than the host: what they set is no option of this one.
_OTHER_SYSTEMS = (
    ("virtualisation", "vmVariant"),
    ("virtualisation", "vmVariantWithBootLoader"),
    ("specialisation",),
    ("containers",),
)
#: Sets of a flake whose members are hosts.
_HOSTS = ("nixosConfigurations", "homeConfigurations")
_PRIORITIES = ("mkForce", "mkDefault", "mkOverride", "mkVMOverride", "mkOptionDefault")


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """One ``path = value;`` of a file.

    :param path: attribute names from the root of the module it is in, ``config`` left out;
        ``options`` first where the module declares an option.
    :param line: from 1.
    :param column: from 1, in bytes, as Nix counts.
    :param value: its text, at most 200 bytes.
    :param is_set: whether the value is written as an attribute set, so that it binds nothing else.
    :param around: attribute names on the way from the root of the file.
    """

    path: tuple[str, ...]
    line: int
    column: int
    value: str
    is_set: bool
    around: tuple[str, ...]


@lru_cache(maxsize=256)
def bindings(text: str) -> tuple[Binding, ...]:
    """Return the bindings of a Nix file in order; what cannot be read is left out.

    :param text: at most 1 MiB of it is read.
    """
    import tree_sitter
    import tree_sitter_nix

    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_nix.language()))
    tree = parser.parse(text.encode()[:_MOST_BYTES])
    return tuple(_walk(tree.root_node, (), (), 0))


def find_binding(
    text: str, path: Sequence[str], *, host: str = "", priority: str = "", value: object = None
) -> Binding | None:
    """Return the binding that sets `path` in a file, ``None`` where none does or several could.

    :param path: attribute names of an option, and of keys inside its value.
    :param host: attribute name of the host, which tells several hosts in one file apart.
    :param priority: how the definition says its priority, see
        :func:`pytest_nixos.nix.config.definitions.priority_name`.
    :param value: of the option, where it is a plain one.
    """
    wanted = tuple(path)
    all_bindings = [b for b in bindings(text) if not (host and _is_of_another(host, b))]
    exact = [b for b in all_bindings if b.path == wanted]
    within = [b for b in all_bindings if b.path[: len(wanted)] == wanted and b not in exact]
    before = [
        b
        for b in all_bindings
        if b.path and len(b.path) < len(wanted) and wanted[: len(b.path)] == b.path and not b.is_set
    ]
    longest = max((len(b.path) for b in before), default=0)
    for found in (exact, within, [b for b in before if len(b.path) == longest]):
        if found:
            return _chosen(found, host, priority, value)
    return None


def _is_of_another(host: str, binding: Binding) -> bool:
    """Whether a binding is written inside another host of the same file."""
    pairs = zip(binding.around, binding.around[1:], strict=False)
    return any(kind in _HOSTS and name != host for kind, name in pairs)


def _chosen(found: Sequence[Binding], host: str, priority: str, value: object) -> Binding | None:
    """Return the one of several that is meant, if that can be told."""
    word = priority.partition(" ")[0]

    def of_priority(binding: Binding) -> bool:
        said = [name for name in _PRIORITIES if name in binding.value]
        return word in said if word else not said

    def of_value(binding: Binding) -> bool:
        last = binding.value.rstrip(") ").split()[-1:]
        return value is not None and last == [_literal(value)]

    left = list(found)
    for holds in (lambda b: host in b.around, of_priority, of_value):
        if len(left) > 1:
            left = [b for b in left if holds(b)] or left
    one_set = len({b.path[:-1] for b in left}) == 1 and len({b.path for b in left}) == len(left)
    # Several keys of one set: the set is what is meant, and it begins at the first of them.
    return left[0] if len(left) == 1 or one_set else None


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _walk(
    node: Node, prefix: tuple[str, ...], around: tuple[str, ...], depth: int
) -> Iterator[Binding]:
    if depth > _DEEPEST:
        return
    if node.type == "function_expression":
        body = node.child_by_field_name("body")
        if body is not None:
            yield from _walk(body, (), around, depth + 1)
    elif node.type == "let_expression":
        for child in node.named_children:
            inner = () if child.type == "binding_set" else prefix
            yield from _walk(child, inner, around, depth + 1)
    elif node.type == "binding":
        yield from _bound(node, prefix, around, depth)
    elif node.type in ("inherit", "inherit_from"):
        yield from _inherited(node, prefix, around)
    else:
        for child in node.named_children:
            yield from _walk(child, prefix, around, depth + 1)


def _bound(
    node: Node, prefix: tuple[str, ...], around: tuple[str, ...], depth: int
) -> Iterator[Binding]:
    attrpath = node.child_by_field_name("attrpath")
    value = node.child_by_field_name("expression")
    if attrpath is None or value is None:
        return
    names = tuple(_name(child) for child in attrpath.named_children if child.type != "comment")
    path = prefix + names
    if path[:1] == ("config",):
        path = path[1:]
    yield _binding(attrpath, path, _text(value), around, is_set=_is_set(value))
    trail = around + names
    if names[-1] in _MODULES or _is_call_with_module(trail, value):
        yield from _walk(value, (), trail, depth + 1)
    elif not any(path[: len(other)] == other for other in _OTHER_SYSTEMS):
        yield from _walk(value, path, trail, depth + 1)


def _is_call_with_module(trail: tuple[str, ...], value: Node) -> bool:
    """Whether a host is what a function of the flake makes of one module: ``web = host { ... };``.

    What takes ``modules``, as ``nixosSystem`` does, takes no module.
    """
    if len(trail) < 2 or trail[-2] not in _HOSTS or value.type != "apply_expression":
        return False
    argument = value.child_by_field_name("argument")
    if argument is None or argument.type not in _SETS:
        return False
    inner = _walk(argument, (), (), 0)
    return not any(binding.path[:1] == ("modules",) for binding in inner)


def _inherited(node: Node, prefix: tuple[str, ...], around: tuple[str, ...]) -> Iterator[Binding]:
    for attrs in node.named_children:
        if attrs.type == "inherited_attrs":
            for name in attrs.named_children:
                yield _binding(name, (*prefix, _name(name)), "", around, is_set=False)


def _binding(
    at: Node, path: tuple[str, ...], value: str, around: tuple[str, ...], *, is_set: bool
) -> Binding:
    row, column = at.start_point
    return Binding(
        path=path, line=row + 1, column=column + 1, value=value, is_set=is_set, around=around
    )


def _is_set(value: Node) -> bool:
    """Whether a value is written out as a set, through ``mkIf`` and the like too."""
    if value.type in _SETS:
        return True
    if value.type in ("with_expression", "let_expression", "assert_expression"):
        body = value.child_by_field_name("body")
        return body is not None and _is_set(body)
    if value.type == "parenthesized_expression":
        return any(_is_set(child) for child in value.named_children)
    if value.type == "apply_expression":
        argument = value.child_by_field_name("argument")
        return argument is not None and _is_set(argument)
    return False


def _name(node: Node) -> str:
    """Return an attribute's name; one that is computed has none that could be known."""
    text = _text(node)
    if node.type == "string_expression" and "${" not in text:
        return text.strip('"')
    return text if node.type == "identifier" else f"<{text}>"


def _text(node: Node) -> str:
    return (node.text or b"")[:200].decode(errors="replace")
