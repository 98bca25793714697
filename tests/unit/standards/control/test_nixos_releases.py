"""Which releases and branches are supported."""

from __future__ import annotations

import pytest

from pytest_nixos.standards.control.nixos_releases import load_releases
from tests.unit.standards.samples import TODAY


@pytest.mark.parametrize(
    ("release", "supported"),
    [
        ("24.05", False),
        ("24.05pre-git", False),
        ("26.05", True),
        ("27.05", True),
        ("unstable", False),
    ],
)
def test_supported_releases(release: str, supported: bool) -> None:
    assert (load_releases().release_problem(release, TODAY) is None) == supported


@pytest.mark.parametrize(
    ("branch", "supported"),
    [
        ("nixos-unstable", True),
        ("nixos-26.05", True),
        ("nixos-26.05-small", True),
        ("nixos-24.05", False),
        ("my-fork", False),
    ],
)
def test_supported_branches(branch: str, supported: bool) -> None:
    assert (load_releases().branch_problem(branch, TODAY) is None) == supported
