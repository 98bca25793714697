"""What systemd answers over the bus is what was asked for, and a bus that does not answer is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_nixos.observe.base import Probe, ProbeOutput, collect
from pytest_nixos.observe.systemd.boot_time import BootTime, boot_time
from pytest_nixos.observe.systemd.bus import ASK_UNITS, ask_units, read_units
from tests.unit.observe.here import here, parsed

PROPERTIES = ("After", "ActiveEnterTimestampMonotonic")
NAMES = (
    *("sshd.service", "-.mount", "0.slice", r"a\x2db_c@d:e.device", f"{'x' * 243}.service"),
    *(f"x{'y' * length}.timer" for length in range(9)),
)
# systemd's end of the private bus, as it is behind systemd-stdio-bridge: it tells of each unit the path and the property
# that were asked for.
BRIDGE = """#!{python}
import sys
from jeepney import HeaderFields, MessageType, Parser, new_error, new_method_return
assert sys.argv[1:] == ["--bus-path=unix:path=/run/systemd/private"], sys.argv
parser = Parser()
assert sys.stdin.buffer.readline() == b"\\0AUTH ANONYMOUS 7079746573742d6e69786f73\\r\\n"
assert sys.stdin.buffer.readline() == b"BEGIN\\r\\n"
sys.stdout.buffer.write(b"OK 0123456789abcdef0123456789abcdef\\r\\n")
number = 0
while raw := sys.stdin.buffer.read1():
    for call in parser.feed(raw):
        number += 1
        {trouble}
        path, (interface, name) = call.header.fields[HeaderFields.path], call.body
        assert interface == "org.freedesktop.systemd1.Unit"
        if path == "/org/freedesktop/systemd1" or "gone" in path:
            reply = new_error(call, "org.freedesktop.DBus.Error.UnknownObject", "s", ("no such unit",))
        elif name == "After":
            reply = new_method_return(call, "v", (("as", [path, "b.target"]),))
        else:
            reply = new_method_return(call, "v", (("t", 1 << 40),))
        sys.stdout.buffer.write(reply.serialise(serial=number))
        sys.stdout.buffer.flush()
"""
SYSTEMCTL = """#!/bin/bash
echo "$*" >>{log}
case "$*" in
  *list-units*) printf '%s\\n' 'multi-user.target loaded active active Multi-User' 'gone.service not-found inactive dead gone' \
    '● bad.service loaded failed failed Bad' 'dev-a.device loaded active plugged A' 'dev-b.device loaded active plugged B';;
  *FinishTimestamp*) printf '%s\\n' UserspaceTimestampMonotonic=1000000 FinishTimestampMonotonic=9000000;;
  *default.target) echo Id=multi-user.target;;
  *) while (($#)) && [[ $1 != -- ]]; do shift; done; shift
    for unit; do printf '%s\\n' "Id=$unit" 'After="dev-a\\\\x2da.device" dev-a.device' InactiveExitTimestampMonotonic=2000000 \
      ActiveEnterTimestampMonotonic=3000000 ''; done;;
esac
"""


def put(program: Path, text: str) -> None:
    program.write_text(text)
    program.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    put(tmp_path / "systemctl", SYSTEMCTL.format(log=tmp_path / "asked"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def bridge(programs: Path, trouble: str = "") -> None:
    put(
        programs / "systemd-stdio-bridge",
        BRIDGE.format(python=sys.executable, trouble=trouble or "pass"),
    )


def asked(*names: str) -> ProbeOutput:
    words = " ".join(f"'{name}'" for name in names)
    script = f"{ASK_UNITS}\npn_ask_units {ask_units(PROPERTIES)} -- {words}"
    probe: Probe[object] = Probe(name="bus", script=script, parse=lambda output: None)
    return collect(here, [probe])["bus"]


def path(name: str) -> str:
    """As ``sd_bus_path_encode`` of systemd does it."""
    coded = "".join(
        c if c.isalpha() or (c.isdigit() and i) else f"_{ord(c):02x}" for i, c in enumerate(name)
    )
    return f"/org/freedesktop/systemd1/unit/{coded}"


def test_each_property_of_each_unit_is_asked_for_by_its_own_path(programs: Path) -> None:
    bridge(programs)
    seen = asked(*NAMES)
    assert seen.exit_status == 0
    found = read_units(seen.stdout, NAMES, PROPERTIES)
    assert list(found) == list(NAMES)
    for name in NAMES:
        assert found[name] == {
            "After": f"{path(name)} b.target",
            "ActiveEnterTimestampMonotonic": str(1 << 40),
        }


def test_a_unit_that_is_gone_is_left_out(programs: Path) -> None:
    bridge(programs)
    names = ("a.service", "gone.service", "b.service")
    seen = asked(*names)
    assert seen.exit_status == 0
    assert list(read_units(seen.stdout, names, PROPERTIES)) == ["a.service", "b.service"]


@pytest.mark.parametrize(
    "trouble",
    ["sys.exit(0)", "sys.exit(1)", "if number == 3: sys.exit(1)", "sys.stdout.buffer.close()"],
)
def test_a_bus_that_gives_up_is_told_at_once(programs: Path, trouble: str) -> None:
    bridge(programs, trouble)
    assert asked(*NAMES).exit_status != 0


def test_no_bridge_is_told(programs: Path) -> None:
    put(programs / "systemd-stdio-bridge", "#!/bin/false\n")
    assert asked(*NAMES).exit_status != 0


def test_odd_answers_are_none() -> None:
    good = b"OK 0\r\n"
    for raw in (
        b"",
        b"OK",
        good,
        good + b"l" * 99,
        good + b"l\2\1\1" + b"\xff" * 60,
        b"REJECTED\r\n",
    ):
        assert read_units(raw, ["a.service"], PROPERTIES) == {}


@pytest.mark.parametrize("answers", [True, False], ids=["the bus", "systemctl"])
def test_boot_times_are_those_of_the_bus_or_else_of_systemctl(
    programs: Path, answers: bool
) -> None:
    if answers:
        bridge(programs)
    boot = collect(here, [boot_time()])["boot-time"]
    shown = [line for line in (programs / "asked").read_text().splitlines() if " -- " in line]
    units = {"multi-user.target", "bad.service", "dev-a.device", "dev-b.device"}
    if answers:
        assert not shown
        found = read_units(dict(boot.raw_records)["answers"], sorted(units), ("After",) * 3)
        assert set(found) == units
    else:
        (show,) = shown
        assert set(show.partition(" -- ")[2].split()) == units
        told = boot_time().parse(boot)
        assert isinstance(told, BootTime)
        assert [unit.name for unit in told.critical_chain][:1] == ["multi-user.target"]
        assert "dev-b.device" not in [unit.name for unit in told.slowest]


def test_systemctl_quotes_names_with_a_backslash() -> None:
    text = (
        "=manager\nUserspaceTimestampMonotonic=0\nFinishTimestampMonotonic=9\n=target\nId=a.mount\n=units\n"
        'Id=a.mount\nAfter="dev-b\\\\x2dc.device"\nInactiveExitTimestampMonotonic=5\nActiveEnterTimestampMonotonic=6\n\n'
        "Id=dev-b\\x2dc.device\nAfter=\nInactiveExitTimestampMonotonic=1\nActiveEnterTimestampMonotonic=4\n"
    )
    boot = parsed(boot_time(), text)
    assert boot is not None
    assert [unit.name for unit in boot.critical_chain] == ["a.mount", r"dev-b\x2dc.device"]
