"""What BOOT-006 says of a machine that keeps no log of its activation."""

from __future__ import annotations

import pytest

from checks.boot.activation import why_untold
from pytest_nixos.plugin.evaluate import FURTHER_OPTIONS
from tests.unit.standards.samples import host_config

OPTION = "system.nixos-init.enable"


@pytest.mark.parametrize(
    ("options", "place", "is_unknown"),
    [
        ({OPTION: True}, "vm", False),
        ({OPTION: True}, "bare-metal", False),
        ({OPTION: True}, "container", True),
        ({OPTION: False}, "vm", True),
        ({}, "vm", True),
    ],
)
def test_a_host_of_nixos_init_has_no_snippets(
    options: dict[str, bool], place: str, is_unknown: bool
) -> None:
    said = why_untold(host_config(options=options), place)
    assert said.startswith("unknown: ") is is_unknown
    assert OPTION in FURTHER_OPTIONS
