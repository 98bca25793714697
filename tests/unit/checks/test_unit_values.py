"""Values that systemd refuses, and the one that was meant."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from checks.units.remedies import elapsing, instead_of, once
from checks.units.values import right_value
from pytest_nixos import Unit
from pytest_nixos.observe import IgnoredDirective
from pytest_nixos.observe.systemd.unit_file import parse_verify
from tests.unit.standards.samples import sample_unit

NAMES = ("db.service", "network-online.target")
SILENT = parse_verify("", answered=True)


@pytest.mark.parametrize(
    ("key", "value", "right"),
    [
        ("Restart", "on-fail", "on-failure"),
        ("Restart", "Always", "always"),
        ("Restart", "whenever it dies", ""),
        ("Type", "one-shot", "oneshot"),
        ("ProtectSystem", "stict", "strict"),
        ("Slice", "batch", "batch.slice"),
        ("CPUQuota", "50", "50%"),
        ("MemoryMax", "2 GB", "2G"),
        ("MemoryHigh", "512MiB", "512M"),
        ("MemoryMax", "much", ""),
        ("OnBootSec", "10mins", "10min"),
        ("RestartSec", "5 secs", "5 sec"),
        ("RestartSec", "soon", ""),
        ("OnCalendar", "daly", "daily"),
        ("OnCalendar", "Mondy 03:00", "monday 03:00"),
        ("OnCalendar", "3am", "03:00"),
        ("OnCalendar", "Mon 12:30 pm", "Mon 12:30"),
        ("OnCalendar", "12am", "00:00"),
        ("OnCalendar", "03:00 Europe/Berln", "03:00 Europe/Berlin"),
        ("OnCalendar", "25:00", ""),
        ("After", "db.servcie network-online.target", "db.service network-online.target"),
        ("Nice", "30", ""),
    ],
)
def test_the_value_that_was_meant(key: str, value: str, right: str) -> None:
    assert right_value(key, value, NAMES).lower() == right.lower()


def ignored(text: str) -> IgnoredDirective:
    return IgnoredDirective(unit="app.service", line=3, key="", text=text)


def test_what_two_lines_need_is_set_once() -> None:
    wrong = "db.servcie"
    unit = replace(
        sample_unit("app.service"), settings={"Unit": {"After": (wrong,), "BindsTo": (wrong,)}}
    )
    told = ignored(f"Failed to add dependency on {wrong}, ignoring: Invalid argument")
    text = instead_of(told, unit, "", NAMES)
    assert 'systemd.services."app".after = lib.mkForce [ "db.service" ];' in text
    assert 'systemd.services."app".bindsTo = lib.mkForce [ "db.service" ];' in text
    assert once([text, text]).count("bindsTo") == 1


def test_a_blank_in_a_variable() -> None:
    unit = sample_unit("app.service", Environment=("A=b", "GREETING=hello world"))
    text = instead_of(ignored("Invalid environment assignment, ignoring: world"), unit, "")
    assert 'systemd.services."app".environment.GREETING = "hello world";' in text


def timer(**settings: str) -> Unit:
    return replace(
        sample_unit("app.timer"), settings={"Timer": {k: (v,) for k, v in settings.items()}}
    )


def test_a_timer_without_a_next_time_keeps_its_rhythm() -> None:
    text = elapsing("app.timer", timer(OnUnitActiveSec="1h"), SILENT)
    assert text.endswith('systemd.timers."app".timerConfig.OnBootSec = "1h";')
    text = elapsing("app.timer", timer(OnCalendar="*-02-30"), SILENT)
    assert text.startswith("# *-02-30 never comes;")
    said = "/etc/systemd/system/app.timer:2: Failed to parse timer value, ignoring: 10mins"
    text = elapsing(
        "app.timer",
        timer(OnBootSec="10mins", OnUnitActiveSec="1h"),
        parse_verify(said, answered=True),
    )
    assert text.endswith('systemd.timers."app".timerConfig.OnBootSec = lib.mkForce "10min";')
