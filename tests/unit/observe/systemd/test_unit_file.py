"""What systemd-analyze verify says of unit files, as systemd 245, 255, 257 and 262 print it."""

from __future__ import annotations

from pathlib import Path

import pytest

from checks.units.of_users import own_managers
from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.observe.systemd.unit_file import parse_verify, verify_units
from pytest_nixos.observe.systemd.user_unit import user_units
from tests.unit.observe.here import ask, moved


@pytest.mark.parametrize(
    "line",
    [
        "/etc/systemd/system/feed.service:8: Unknown key 'ProtectSytem' in section [Service], ignoring.",
        "/etc/systemd/system/feed.service:8: Unknown key name 'ProtectSytem' in section 'Service', ignoring.",
        "/etc/systemd/system/feed.service:8: Unknown lvalue 'ProtectSytem' in section 'Service', ignoring.",
        "/nix/store/x-unit-feed.service/feed.service:8: Unknown key 'ProtectSytem' in section [Service], ignoring.",
        "/etc/systemd/system/feed.service.d/overrides.conf:8: Unknown key 'ProtectSytem' in section [Service], ignoring.",
    ],
)
def test_a_directive_that_systemd_does_not_know(line: str) -> None:
    (ignored,) = parse_verify(line, answered=True).ignored
    assert (ignored.unit, ignored.line, ignored.key) == ("feed.service", 8, "ProtectSytem")


def test_a_value_that_systemd_refuses() -> None:
    said = (
        "/etc/systemd/system/a.timer:2: Failed to parse calendar specification, ignoring: dayly\n"
        "a.timer: Timer unit lacks value setting. Refusing.\n"
        "Unit a.timer has a bad unit file setting.\n"
    )
    report = parse_verify(said, answered=True)
    assert [(i.unit, i.key) for i in report.ignored] == [("a.timer", "")]
    assert report.refused == ("a.timer",)
    assert "Timer unit lacks value setting. Refusing." in report.of("a.timer")


def test_cycles_once_each() -> None:
    said = """\
cache.service: Found ordering cycle on indexer.service/start
cache.service: Found dependency on cache.service/start
cache.service: Unable to break cycle starting with cache.service/start
cache.service: Found ordering cycle on indexer.service/start
cache.service: Found dependency on cache.service/start
"""
    report = parse_verify(said, answered=True)
    assert [(c.unit, c.at) for c in report.cycles] == [("cache.service", "indexer.service")]


OF_THREE_257 = """\
three.service: Found ordering cycle on one.service/start
three.service: Found dependency on two.service/start
three.service: Found dependency on three.service/start
three.service: Unable to break cycle starting with three.service/start
one.service: Found ordering cycle on two.service/start
one.service: Found dependency on three.service/start
one.service: Found dependency on one.service/start
"""
OF_THREE_262 = """\
three.service: Found ordering cycle: one.service/start after two.service/start after three.service/start - after one.service
three.service: Unable to break cycle starting with three.service/start
one.service: Found ordering cycle: two.service/start after three.service/verify-active after one.service/start - after two.service
"""


@pytest.mark.parametrize("said", [OF_THREE_257, OF_THREE_262])
def test_all_members_of_a_cycle(said: str) -> None:
    """Recorded; from another member it is told once more."""
    (cycle,) = parse_verify(said, answered=True).cycles
    assert (cycle.unit, cycle.at) == ("three.service", "one.service")
    assert cycle.members == ("one.service", "two.service", "three.service")


def test_remarks_about_what_is_only_pulled_in_are_no_ignored_directives() -> None:
    said = """\
syslog.socket: service syslog.service not loaded, socket cannot be started.
backup.timer: Cannot add dependency job, ignoring: Unit backup.timer has a bad unit file setting.
/etc/systemd/system/x.service:3: Support for option SysVStartPriority= has been removed
"""
    assert parse_verify(said, answered=True).ignored == ()


def test_a_manager_that_does_not_start_answers_nothing() -> None:
    said = "Failed to lookup RuntimeDirectory path: No such device or address\nFailed to initialize manager: No such device or address\n"
    assert not parse_verify(said, answered=True).answered


def test_of_a_template_only_unknown_directives_are_told() -> None:
    assert "worker@.service" in verify_units(["worker@.service"]).script
    said = """\
/etc/systemd/system/worker@.service:3: Unknown key 'PrivateTmpp' in section [Service], ignoring.
/etc/systemd/system/worker@.service:4: ReadWritePaths= path is not absolute, ignoring: i
"""
    (ignored,) = parse_verify(said, answered=True).ignored
    assert (ignored.unit, ignored.key) == ("worker@.service", "PrivateTmpp")


def test_units_of_users() -> None:
    said = b"""=count 2
=said
/etc/systemd/user/hello.service:3: Unknown key 'Restrat' in section [Service], ignoring.
=manager alice boot
sync.service loaded failed failed Sync
=manager bob later
=manager carol
=dangling
/home/alice/.config/x
"""
    seen = user_units().parse(ProbeOutput(stdout=said, exit_status=0))
    assert seen.answered
    assert seen.report.ignored[0].unit == "hello.service"
    assert seen.failed == (("alice", "sync.service"),)
    assert (seen.managers, seen.of_the_boot) == (("alice", "bob", "carol"), ("alice",))
    # A login of the run says nothing of the host, one of a live host's people does.
    assert own_managers(seen, "container") == own_managers(seen, "vm") == ("alice",)
    assert own_managers(seen, "bare-metal") == seen.managers
    assert seen.dangling == ("/home/alice/.config/x",)


@pytest.mark.parametrize(("stdout", "status"), [(b"", 127), (b"", 0), (b"=count many\n", 0)])
def test_units_of_users_that_cannot_be_told(stdout: bytes, status: int) -> None:
    assert not user_units().parse(ProbeOutput(stdout=stdout, exit_status=status)).answered


def test_homes_that_lie_elsewhere_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "link").symlink_to("/nix/store/gone")
    accounts = tmp_path / "passwd"
    accounts.write_text(
        f"ann:x:1000:100::{tmp_path}/ann:/bin/sh\nnixbld1:x:30001:30000::{tmp_path}/b:/bin/no\nx:x:08:1::/x:/y\n"
    )
    probe = moved(user_units(), "homes=(/root /home/*)", "homes=()")
    seen = ask(moved(probe, "</etc/passwd", f"<{accounts}"))
    assert seen.dangling == (f"{tmp_path}/ann/link",)


def test_a_link_at_home_says_nothing_of_other_units(tmp_path: Path) -> None:
    forged = "x\nfailed root sshd.service\n=manager root\nsshd.service"
    home = tmp_path / "ann"
    home.mkdir()
    (home / forged).symlink_to("/nix/store/gone")
    seen = ask(moved(user_units(), "homes=(/root /home/*)", f"homes=({tmp_path}/*)"))
    assert seen.dangling == (f"{home}/{forged}",)
    assert seen.failed == ()


def test_what_wants_a_unit_of_a_user(tmp_path: Path) -> None:
    units = tmp_path / "ann" / ".config" / "systemd" / "user"
    for target in ("multi-user.target", "mine.target"):
        (units / f"{target}.wants").mkdir(parents=True)
        (units / f"{target}.wants" / "sync.service").touch()
    probe = moved(user_units(), "homes=(/root /home/*)", f"homes=({tmp_path}/*)")
    assert ask(probe).absent["sync.service"] == ("mine.target", "multi-user.target")
    (units / "mine.target").touch()
    assert "sync.service" not in ask(probe).absent
