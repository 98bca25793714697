"""What a check of a suite may look at beside its host."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_nixos.plugin.watch.affected import _Choice
from pytest_nixos.plugin.watch.notes import Before


@pytest.mark.parametrize(
    ("fixture", "again"), [("nixos_machine", False), ("nixos_flake", True), ("nixos_cluster", True)]
)
def test_a_suite_that_looks_at_other_hosts_is_judged_again(fixture: str, again: bool) -> None:
    item: Any = SimpleNamespace(
        nodeid="check",
        path=Path("check.py"),
        fixturenames=(fixture,),
        get_closest_marker=lambda _: None,
    )
    settings = SimpleNamespace(waivers=None, baseline=None)
    session: Any = SimpleNamespace(entries=(), settings=settings)
    suites: Any = SimpleNamespace(contains=lambda _: True)
    before = Before(
        judged=frozenset({"check"}), failed=frozenset(), hosts={}, changed=("/f/hosts/other.nix",)
    )
    assert _Choice(before, session, suites, modules={"check.py"}).affects(item) is again
