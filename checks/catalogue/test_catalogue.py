"""One item per data control and host."""

from __future__ import annotations

from collections.abc import Callable

from pytest_nixos import Control


def test_control(nixos_control: Control, nixos_judge: Callable[[Control], None]) -> None:
    nixos_judge(nixos_control)
