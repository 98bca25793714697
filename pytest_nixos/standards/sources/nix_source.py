"""What the text of a Nix file says, by its syntax: comments and strings mean nothing here.

Parsed by tree-sitter-nix, which reads every text, broken ones as far as it can.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

__all__ = ["Place", "impure_references", "unhashed_fetches"]

#: Functions of Nix and of nixpkgs that fetch, by their last name.
_FETCHERS = frozenset(
    {
        "fetchurl",
        "fetchTarball",
        "fetchzip",
        "fetchGit",
        "fetchgit",
        "fetchhg",
        "fetchsvn",
        "fetchpatch",
        "fetchpatch2",
        "fetchFromBitbucket",
        "fetchFromGitHub",
        "fetchFromGitLab",
        "fetchFromGitea",
        "fetchFromSourcehut",
    }
)
#: Names of the arguments that fix what is fetched.
_PINS = frozenset(
    {
        *("hash", "sha1", "sha256", "sha512", "md5", "narHash", "outputHash", "rev"),
        *("vendorHash", "cargoHash"),
    }
)
_IMPURE_BUILTINS = frozenset({"currentTime", "currentSystem", "getEnv", "storePath"})
_SETS = ("attrset_expression", "rec_attrset_expression")
_TEXTS = ("string_expression", "indented_string_expression", "uri_expression")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A finding in a file.

    :param line: from 1.
    :param what: the words of the file that it is about.
    """

    line: int
    what: str


def unhashed_fetches(text: str) -> list[Place]:
    """Return the calls of fetchers that are given their argument in full, and no hash or revision
    in it.

    An argument that is made elsewhere (a variable, a merge, a call) may hold a hash: it is no
    finding.
    """
    found = []
    for node in _nodes(text):
        if node.type != "apply_expression":
            continue
        function, argument = (node.child_by_field_name(n) for n in ("function", "argument"))
        name = _last_name(function)
        if argument is not None and name in _FETCHERS and _is_loose(argument):
            found.append(Place(line=_line(node), what=name))
    return sorted(found, key=lambda place: place.line)


def impure_references(text: str) -> list[Place]:
    """Return the references to channels (``<nixpkgs>``) and to built-ins whose value is the
    machine's: time, environment, system, store.
    """
    found = []
    for node in _nodes(text):
        if node.type == "spath_expression":
            found.append(Place(line=_line(node), what=_words(node)))
        elif node.type == "select_expression":
            base = node.child_by_field_name("expression")
            names = _names(node.child_by_field_name("attrpath"))
            of_nix = base is not None and _words(base) == "builtins"
            if of_nix and _IMPURE_BUILTINS & set(names[:1]):
                found.append(Place(line=_line(node), what=f"builtins.{names[0]}"))
    return sorted(found, key=lambda place: place.line)


def _is_loose(argument: Node) -> bool:
    if argument.type in _TEXTS:
        return True
    return argument.type in _SETS and not _PINS & set(_bound(argument))


def _bound(attributes: Node) -> Iterator[str]:
    """Yield the names that a set binds itself: by ``=`` or by ``inherit``."""
    for bindings in attributes.named_children:
        for binding in bindings.named_children if bindings.type == "binding_set" else ():
            path = binding.child_by_field_name("attrpath")
            yield from _names(path)[:1] if binding.type == "binding" else ()
            inherited = binding.child_by_field_name("attrs")
            yield from _names(inherited)


def _last_name(function: Node | None) -> str:
    if function is None:
        return ""
    if function.type == "variable_expression":
        return _words(function)
    if function.type == "select_expression":
        return (_names(function.child_by_field_name("attrpath")) or [""])[-1]
    return ""


def _names(path: Node | None) -> list[str]:
    return [] if path is None else [_words(part).strip('"') for part in path.named_children]


def _words(node: Node) -> str:
    return (node.text or b"").decode(errors="replace")


def _line(node: Node) -> int:
    return int(node.start_point[0]) + 1


def _nodes(text: str) -> Iterator[Node]:
    # A stack and no recursion: a stranger's file may nest as deep as it likes.
    waiting = [_parser().parse(text.encode()).root_node]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node.named_children)


@cache
def _parser() -> Parser:
    # Loaded where a control reads sources: every other run would pay for it.
    import tree_sitter
    import tree_sitter_nix

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_nix.language()))
