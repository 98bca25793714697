"""What later items of a host that failed say in a few words."""

from __future__ import annotations

import pytest

from pytest_nixos.errors import (
    BootError,
    FlakeError,
    NixosError,
    SettingsError,
    TransportError,
)
from pytest_nixos.local.memory import HostMemoryError
from pytest_nixos.plugin.host_failure import why_not_judged


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FlakeError("x", remedy="y"), "the host does not evaluate"),
        (BootError("x", remedy="y", state="kernel panic"), "the machine did not boot"),
        (HostMemoryError("x", remedy="y"), "this machine has too little memory for it"),
        (SettingsError("x", remedy="y"), "the machine was not started"),
        (TransportError("x", remedy="y"), "the machine went away or cannot be used"),
    ],
)
def test_a_failure_in_a_few_words(error: NixosError, words: str) -> None:
    assert why_not_judged(error) == words
