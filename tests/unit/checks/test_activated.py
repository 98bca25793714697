"""What an activation of the running system says of its own end."""

from __future__ import annotations

import pytest

from checks.catalogue.activated import failed_snippets

OF_NSPAWN = """\
activating the configuration...
mount: /dev: permission denied.
       dmesg(1) may have more information after failed mount system call.
mount: /dev/shm: permission denied.
Activation script snippet 'specialfs' failed (32)
setting up /etc...
"""
OWN = "Activation script snippet 'counts' failed (1)\n"


@pytest.mark.parametrize(
    ("output", "place", "snippets"),
    [
        (OF_NSPAWN, "container", ()),
        (OF_NSPAWN, "vm", ("specialfs",)),
        (OF_NSPAWN + OWN, "container", ("counts",)),
        ("activating the configuration...\n", "container", ("activation script",)),
    ],
)
def test_failed_snippets(output: str, place: str, snippets: tuple[str, ...]) -> None:
    assert failed_snippets(output, place=place) == snippets
