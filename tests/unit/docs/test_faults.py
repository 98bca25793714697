"""The page of faults names tests that there are."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[2]
PAGE = TESTS.parent / "docs" / "explanation" / "faults.md"
# What a test cannot be: made by hand, with what came out.
BY_HAND = ("`tests/fresh/run ", "`systemd-run ")
LEAST = 120


def rows() -> list[list[str]]:
    found = re.findall(
        r"^\| (\d+) \| (.+) \| (.+) \| (.*) \| (`.+`) \|$", PAGE.read_text(), re.MULTILINE
    )
    return [list(row) for row in found]


@cache
def functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_each_row_names_a_test_that_there_is() -> None:
    missing = []
    for number, _, _, _, cell in rows():
        if cell.startswith(BY_HAND):
            continue
        path, _, name = cell.strip("`").partition("::")
        if not (TESTS / path).is_file() or name not in functions(TESTS / path):
            missing.append(f"{number}: {cell}")
    assert not missing


def test_each_defect_names_tests_that_there_are() -> None:
    named = re.findall(r"`([^`]+\.py)::(\w+)`", PAGE.read_text())
    assert len(named) > LEAST
    assert [
        f"{path}::{name}"
        for path, name in named
        if not (TESTS / path).is_file() or name not in functions(TESTS / path)
    ] == []


def test_each_fault_is_told_once_and_was_survived() -> None:
    found = rows()
    assert [int(row[0]) for row in found] == list(range(1, len(found) + 1))
    assert len(found) >= LEAST
    assert {row[3] for row in found} == {"survived"}
    faults = [row[1] for row in found]
    assert [fault for fault in faults if faults.count(fault) > 1] == []


def test_every_line_of_a_table_is_read() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if re.match(r"\| \d", line)]
    assert len(lines) == len(rows())


def test_the_breakout_tests_are_all_told() -> None:
    told = {row[4].strip("`") for row in rows()}
    for name in ("test_container_breakout", "test_container_limits", "test_hostile_vm"):
        path = TESTS / "machine" / f"{name}.py"
        tests = {one for one in functions(path) if one.startswith("test_")} - {
            "test_nothing_is_left"
        }
        assert {f"machine/{name}.py::{one}" for one in tests} <= told
