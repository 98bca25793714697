"""The reference of the plugin: options, markers, fixtures, hooks and public classes, read from
the code itself.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest_nixos
from pytest_nixos.plugin import hookspecs
from pytest_nixos.plugin.hooks import MARKERS
from pytest_nixos.plugin.settings.declared_options import option_rows

__all__ = ["plugin_page"]

_PLUGIN = Path(pytest_nixos.__file__).parent / "plugin"
_FIXTURE_FILES = ("fixtures.py", "host_fixture.py", "judging/data_controls.py")
_HEAD = """<!-- Made by `./dev docs` from the code; edit the help texts and docstrings instead. -->

# Options, markers, fixtures, hooks

## Options

Every option is `--nixos-NAME` on the command line and `nixos_name` in pytest's ini file; the command line beats the ini file.
"""


def plugin_page() -> str:
    """Return the page."""
    parts = [
        _HEAD.strip(),
        _table(("option", "default", "meaning"), list(option_rows())),
        "## Markers",
        _table(("marker", "meaning"), [_marker(text) for text in MARKERS]),
        "## Fixtures",
        _table(("fixture", "scope", "gives"), sorted(_fixtures())),
        "## Hooks",
        "A plugin or a `conftest.py` implements them (`pytest_nixos/plugin/hookspecs.py`).",
        _table(("hook", "what for"), [_hook(name) for name in hookspecs.__all__]),
        "## Public classes and functions",
        "Everything that `pytest_nixos` names; modules below it may move.",
        _table(("name", "what it is"), list(_public())),
    ]
    return "\n\n".join(parts) + "\n"


def _marker(text: str) -> tuple[str, str]:
    call, _, meaning = text.partition(": ")
    return f'<a id="marker-{call.partition("(")[0]}"></a>`{call}`', meaning


def _fixtures() -> Iterator[tuple[str, str, str]]:
    for name in _FIXTURE_FILES:
        for node in ast.parse((_PLUGIN / name).read_text(encoding="utf-8")).body:
            scope = _fixture_scope(node)
            if scope and isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                text = _first_sentence(ast.get_docstring(node) or "")
                yield f'<a id="fixture-{node.name}"></a>`{node.name}`', scope, text


def _fixture_scope(node: ast.stmt) -> str:
    """Return the scope of a fixture's definition, ``""`` for any other statement."""
    for decorator in getattr(node, "decorator_list", ()):
        if ast.unparse(decorator).partition("(")[0] == "pytest.fixture":
            words = decorator.keywords if isinstance(decorator, ast.Call) else ()
            scopes = [ast.literal_eval(k.value) for k in words if k.arg == "scope"]
            return str(scopes[0]) if scopes else "function"
    return ""


def _hook(name: str) -> tuple[str, str]:
    function = getattr(hookspecs, name)
    arguments = ", ".join(inspect.signature(function).parameters)
    return f'<a id="hook-{name}"></a>`{name}({arguments})`', _first_sentence(function.__doc__ or "")


def _public() -> Iterator[tuple[str, str]]:
    for name in sorted(set(pytest_nixos.__all__) - {"__version__", "observe"}):
        what = getattr(pytest_nixos, name)
        yield f'<a id="{name}"></a>`{name}`', _first_sentence(inspect.getdoc(what) or "")


def _first_sentence(text: str) -> str:
    return " ".join(text.split("\n\n", maxsplit=1)[0].split()).replace("``", "`")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines)
