"""What systemd says of units, as version 257 printed it for units linked from a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.observe.systemd.unit import (
    UnitState,
    exposure,
    failed_units,
    parse_show,
    unit_files,
    unit_name,
    units,
)

RECORDED = Path(__file__).parents[2] / "recorded"
TWO_UNITS = """ExecStartPre={ path=/bin/true ; argv[]=/bin/true ; }
ExecStartPre={ path=/bin/sh ; argv[]=/bin/sh -c true
two lines ; }
Id=graphical.target
Names=default.target graphical.target
LoadState=loaded
ActiveState=active
FragmentPath=/usr/lib/systemd/system/graphical.target
MainPID=0

Id=nope.service
Names=nope.service
LoadState=not-found
ActiveState=inactive
MainPID=0
"""


def unit(**properties: str) -> UnitState:
    return UnitState(name="x.service", properties=properties)


@pytest.mark.parametrize(
    ("properties", "exists", "enabled"),
    [
        ({"LoadState": "not-found", "ActiveState": "inactive"}, False, False),
        ({}, False, False),
        # A link into the store that nothing wants.
        ({"FragmentPath": "/etc/x", "UnitFileState": "linked"}, True, False),
        ({"FragmentPath": "/etc/x", "UnitFileState": "linked", "WantedBy": "a.target"}, True, True),
        ({"FragmentPath": "/etc/x", "UnitFileState": "enabled"}, True, True),
        ({"FragmentPath": "/etc/x", "UnitFileState": "static"}, True, False),
        ({"FragmentPath": "/run/x", "UnitFileState": "generated", "RequiredBy": "b"}, True, True),
        ({"FragmentPath": "/etc/x", "UpheldBy": "b.target"}, True, True),
        ({"LoadState": "masked", "UnitFileState": "masked", "WantedBy": "a.target"}, True, False),
        # Any well-formed device or slice name is "loaded".
        ({"ActiveState": "inactive"}, False, False),
        ({"ActiveState": "active"}, True, False),
        ({"ActiveState": "inactive", "Transient": "yes"}, True, False),
        ({"LoadState": "bad-setting", "FragmentPath": "/etc/x"}, True, False),
    ],
)
def test_existing_and_enabled(properties: dict[str, str], exists: bool, enabled: bool) -> None:
    state = (
        unit(**({"LoadState": "loaded", "ActiveState": "inactive"} | properties))
        if properties
        else unit()
    )
    assert (state.exists, state.is_enabled) == (exists, enabled)


@pytest.mark.parametrize(
    ("active", "running", "failed"),
    [("active", True, False), ("reloading", True, False), ("failed", False, True)],
)
def test_running_and_failed(active: str, running: bool, failed: bool) -> None:
    assert (unit(ActiveState=active).is_running, unit(ActiveState=active).is_failed) == (
        running,
        failed,
    )


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("sshd", "sshd.service"),
        ("nix-daemon.socket", "nix-daemon.socket"),
        ("dbus-org.freedesktop.login1", "dbus-org.freedesktop.login1.service"),
        ("service", "service.service"),
    ],
)
def test_suffixes_are_added_as_systemctl_does(name: str, full: str) -> None:
    assert unit_name(name) == full


def test_values_may_hold_newlines_and_come_more_than_once() -> None:
    first, second = parse_show(TWO_UNITS)
    assert first["ExecStartPre"].count("\n") == 2
    assert first["ExecStartPre"].endswith("two lines ; }")
    assert second["LoadState"] == "not-found"


def test_an_alias_is_found_under_the_name_that_was_asked_for() -> None:
    probe = units(["default.target", "nope"])
    states = probe.parse(ProbeOutput(stdout=TWO_UNITS.encode(), exit_status=0))
    assert states["default.target"].is_running
    assert not states["nope.service"].exists
    assert "graphical.target" not in states


def test_an_empty_line_inside_a_value_does_not_tear_a_unit_apart() -> None:
    text = "ExecStart={ a\n\nb }\nMainPID=7\nId=a.service\nNames=a.service\n\nMainPID=8\nId=b.service\nNames=b.service\n"
    states = units(["a", "b"]).parse(ProbeOutput(stdout=text.encode(), exit_status=0))
    assert (states["a.service"].main_pid, states["b.service"].main_pid) == (7, 8)


def test_templates_are_never_asked_for_because_systemctl_gives_up_at_one() -> None:
    probe = units(["getty@", "getty@tty1", "ssh"])
    assert "getty@.service" not in probe.script
    assert "getty@tty1.service ssh.service" in probe.script


def test_no_names_ask_nothing() -> None:
    assert units([]).script == ":"
    assert units([]).parse(ProbeOutput(stdout=b"", exit_status=0)) == {}


def test_failed_units_are_told_from_no_answer() -> None:
    listed = (
        b"bad.service loaded failed failed bad\n\xe2\x97\x8f old.mount loaded failed failed x\n"
    )
    parse = failed_units().parse
    assert parse(ProbeOutput(stdout=listed, exit_status=0)) == ("bad.service", "old.mount")
    assert parse(ProbeOutput(stdout=b"", exit_status=0)) == ()
    assert parse(ProbeOutput(stdout=b"", exit_status=1)) is None


def test_unit_files() -> None:
    text = b"a.service linked enabled\nb@.service static -\n"
    found = unit_files().parse(ProbeOutput(stdout=text, exit_status=0))
    assert found == {"a.service": "linked", "b@.service": "static"}
    assert unit_files().parse(ProbeOutput(stdout=b"", exit_status=1)) is None


def test_exposure_with_what_adds_to_it() -> None:
    text = (RECORDED / "exposure.txt").read_bytes()
    found = exposure(["wanted"]).parse(ProbeOutput(stdout=text, exit_status=0))["wanted.service"]
    assert (found.score, found.rating) == (2.0, "OK")
    assert found.items[0].weight == 0.3
    assert any(item.directive.startswith("RestrictAddressFamilies=") for item in found.items)
    assert sorted((item.weight for item in found.items), reverse=True) == [
        item.weight for item in found.items
    ]


def test_exposure_never_asks_for_all_units() -> None:
    assert exposure(["a.socket", "b@.service"]).script == ":"
    assert exposure(["a", "b@1"]).script.endswith(" a.service b@1.service")
