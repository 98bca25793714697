"""Properties by which checks judge units are asked for: one that nobody asks for would read as not set."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from checks.sandboxing import directives
from checks.units import declared, idle, test_units
from pytest_nixos.observe import SANDBOXING
from pytest_nixos.observe.systemd.declared_unit import declared_states
from pytest_nixos.observe.unit_table import UnitQuery
from tests.unit.standards.samples import host_config, sample_unit


def asked() -> UnitQuery:
    query = declared_states(host_config(units={"a.service": sample_unit("a.service")})).units
    assert query is not None
    return query


@pytest.mark.parametrize("module", [declared, idle, test_units])
def test_what_the_suite_of_units_reads_is_asked_for(module: object) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text())  # type: ignore[attr-defined]
    read = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "get"
        and isinstance(node.args[0], ast.Constant)
    }
    told = {name for name in read if isinstance(name, str) and name[:1].isupper()} - {"Unit"}
    assert told and told <= {*asked().properties}


def test_starters_and_sandboxing_are_asked_for() -> None:
    assert {*declared._STARTERS, *SANDBOXING} <= {*asked().properties}
    assert directives._CAPABILITIES in SANDBOXING and directives._FILTER in SANDBOXING
