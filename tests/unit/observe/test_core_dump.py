"""Core dumps: what becomes of them, not what one file says."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from pytest_nixos.observe.base import collect
from pytest_nixos.observe.core_dump import core_dumps
from tests.unit.observe.here import here, parsed

SYSTEMD = "|/nix/store/x-systemd/lib/systemd/systemd-coredump %P %u"
LIMITS = "web.service                0                    unlimited            bytes\nold.service unlimited unlimited bytes\n"


@pytest.mark.parametrize(
    ("pattern", "settings", "stored"),
    [
        (SYSTEMD, "Storage=none", []),
        (SYSTEMD, "#Storage=none", ["systemd-coredump: Storage is external"]),
        # A file of coredump.conf.d comes later and wins.
        (SYSTEMD, "Storage=none\nStorage=journal", ["systemd-coredump: Storage is journal"]),
        ("|/bin/false", "", []),
        ("|/usr/bin/apport %p", "Storage=none", ["handed to /usr/bin/apport"]),
        # The kernel writes files, whatever coredump.conf says; the unit's own limit decides.
        ("core", "Storage=none", ["old.service: dumps to a file named core"]),
    ],
)
def test_where_dumps_are_stored(pattern: str, settings: str, stored: list[str]) -> None:
    text = f"=pattern\n{pattern}\n=settings\n{settings}\n=limits\n{LIMITS}=complete\n"
    found = parsed(core_dumps(), text)
    assert found is not None and found.stored == stored


def test_a_container_has_no_core_pattern_of_its_own() -> None:
    found = parsed(core_dumps(), "=settings\nStorage=none\n=limits\n=complete\n")
    assert found is not None and found.stored == []
    assert parsed(core_dumps(), "=settings\nStorage=none\n") is None


def test_a_limit_is_told_of_its_own_unit() -> None:
    # systemctl prints the service's properties before the unit's.
    show = "MainPID=1\nId=first.service\nSubState=running\n\nMainPID=0\nId=second.service\nSubState=exited\n\n"
    table = f"mapfile -t pn_units <<< {shlex.quote(show)}\n"
    probe = replace(core_dumps(), script=table + core_dumps().script, units=None)
    (line,) = collect(here, [probe])[probe.name].sections["limits"]
    assert line.startswith("first.service ")
