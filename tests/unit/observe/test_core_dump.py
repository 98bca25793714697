"""Core dumps: what becomes of them, not what one file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos.observe.base import collect
from pytest_nixos.observe.core_dump import core_dumps
from tests.unit.observe.here import here, moved, parsed

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


@pytest.mark.parametrize(("pattern", "limits"), [("core", ["first.service"]), (SYSTEMD, [])])
def test_limits_are_told_of_their_own_unit_and_where_they_decide(
    pattern: str, limits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # systemctl prints the service's properties before the unit's.
    show = r"MainPID=1\nId=first.service\n\nMainPID=0\nId=second.service\n"
    program = tmp_path / "systemctl"
    program.write_text(
        f"""#!/bin/bash
case $1 in
  list-units) printf 'first.service loaded\\nsecond.service loaded\\n';;
  show) [[ $* == *'-- first.service second.service' ]] && printf '{show}';;
esac
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "pattern").write_text(f"{pattern}\n")
    probe = moved(core_dumps(), "/proc/sys/kernel/core_pattern", str(tmp_path / "pattern"))
    probe = moved(probe, "/run/systemd/container", str(tmp_path / "none"))
    sections = collect(here, [probe])[probe.name].sections
    assert "complete" in sections
    assert [line.split()[0] for line in sections["limits"] if line] == limits
