"""One table of units for all probes of a trip."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos.observe import at_once as module
from pytest_nixos.observe.base import Probe, collect
from pytest_nixos.observe.filesystems.search_path import search_paths
from pytest_nixos.observe.store import Observations
from pytest_nixos.observe.systemd.boot_time import boot_time
from pytest_nixos.observe.systemd.declared_unit import declared_states
from pytest_nixos.observe.systemd.process import process_facts
from pytest_nixos.observe.systemd.unit import lively_services, shared_units
from pytest_nixos.observe.unit_table import PRINT_UNITS, UnitQuery
from tests.unit.observe.here import here
from tests.unit.observe.test_base import Asked
from tests.unit.standards.samples import host_config, sample_unit

SHOWN = "Id={0}\nNames={0}\nLoadState=loaded\nActiveState=active\nSubState=running\nMainPID=0\nUser=web\nEnvironment=TOKEN=hunter2\n\n"
SYSTEMCTL = """#!/bin/bash
echo "$*" >>{log}
case $1 in
  list-units) printf 'web.service loaded active running The web\\n';;
  show) while (($#)) && [[ $1 != -- ]]; do shift; done; shift
    for unit; do printf '{shown}' "$unit"; done;;
esac
"""
BUSCTL = """#!/bin/bash
echo '{"type":"a(ssssssouso)","data":[[["gone.timer","gone.timer","not-found","inactive","dead","","/x",0,"","/"],'\
'["there.timer","[\\\\"gone.service\\\\",\\\\"gone.service\\\\",\\\\"not-found\\\\",\\\\"inactive\\\\",\\\\"dead\\\\",","loaded","active","waiting","","/x",0,"","/"]]]}'
"""
IDLE: list[Probe[object]] = [
    Probe(name=f"idle{i}", script=f"true {i}", parse=lambda output: output.text) for i in range(6)
]


@pytest.fixture(params=[1, 4], ids=["one by one", "at once"])
def systemd(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """What was asked of a systemd that has each service and two timers, one of which does not
    exist.
    """
    monkeypatch.setattr(module, "_MOST_WORKERS", request.param)
    log = tmp_path / "asked"
    log.touch()
    shown = SHOWN.format("%s").replace("%s", "%1$s").replace("\n", "\\n")
    shown = shown.replace("%1$s", "'\"$unit\"'")
    put(tmp_path / "systemctl", SYSTEMCTL.format(log=log, shown=shown))
    put(tmp_path / "busctl", BUSCTL)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return log


def put(program: Path, text: str) -> None:
    program.write_text(text)
    program.chmod(0o755)


def shows(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines() if line.startswith("show")]


def test_many_probes_ask_once(systemd: Path) -> None:
    states = shared_units(["web", "db"], light=["there.timer"], properties=["User"])
    told = shared_units(["web"], properties=["Environment"], name="told")
    asked = [*IDLE, states, told, search_paths(), lively_services(["web"]), process_facts(["web"])]
    kept = Observations(Asked())
    kept.prefetch(asked)
    (show,) = shows(systemd)
    assert set(show[show.index("--") + 1 :]) == {"web.service", "db.service", "there.timer"}
    properties = set(show[2].removeprefix("--property=").split(","))
    assert {"User", "Environment", "MainPID", "NeedDaemonReload"} <= properties
    found = kept.of(states)
    assert set(found) == {"web.service", "db.service", "there.timer"}
    assert found["db.service"].get("User") == "web" and found["db.service"].exists
    # What another probe asks for does not leave the guest.
    assert "hunter2" not in kept.output(states).text
    assert kept.of(search_paths()) is not None
    assert set(kept.of(lively_services(["web"]))) == {"web.service"}


def test_what_does_not_exist_is_not_shown_and_told_as_such(systemd: Path) -> None:
    states = shared_units([], light=["gone.timer", "gone.service", "there.timer"])
    kept = Observations(Asked())
    kept.prefetch([*IDLE, states])
    (show,) = shows(systemd)
    # A description that imitates the answer about another unit is none.
    assert set(show[show.index("--") + 1 :]) == {"gone.service", "there.timer"}
    found = kept.of(states)
    assert not found["gone.timer"].exists and found["gone.timer"].get("ActiveState") == "inactive"
    assert found["gone.service"].exists and found["there.timer"].is_running


def test_whose_properties_matter_is_shown_whether_it_exists_or_not(systemd: Path) -> None:
    collect(
        here,
        [*IDLE, shared_units(["gone.timer"]), shared_units([], light=["gone.timer"], name="b")],
    )
    (show,) = shows(systemd)
    assert show[-1] == "gone.timer"


def test_without_a_bus_all_are_shown(systemd: Path) -> None:
    put(systemd.parent / "busctl", "#!/bin/bash\nexit 1\n")
    collect(here, [*IDLE, shared_units([], light=["gone.timer"])])
    assert shows(systemd)[0][-1] == "gone.timer"


def test_a_systemd_that_dies_leaves_an_empty_table(systemd: Path) -> None:
    put(systemd.parent / "systemctl", "#!/bin/bash\nkill -9 $PPID\n")
    states = shared_units(["web"])
    outputs = collect(here, [*IDLE, states])
    assert states.parse(outputs[states.name]) == {}


def test_the_table_reaches_nobody_else(systemd: Path) -> None:
    put(systemd.parent / "systemctl", "#!/bin/bash\nls /proc/$$/fd | wc -l\n")
    asked = Probe(name="t", script=PRINT_UNITS, parse=lambda output: output.text,
                  units=UnitQuery(names=("a.service",)))  # fmt: skip
    told = collect(here, [*IDLE, asked])["t"].text.split()
    # Standard streams, its own file twice, the pipe that ends with it, and bash's own script.
    assert int(told[0]) <= 7


def test_declared_units_and_boot_times_take_one_trip(systemd: Path) -> None:
    host = host_config(units={n: sample_unit(n) for n in ("web.service", "a.timer")})
    kept = Observations(Asked())
    kept.prefetch([declared_states(host), boot_time()])
    assert kept.of(declared_states(host))["a.timer"].is_running
    kept.of(boot_time())
    assert kept.round_trips == 1


def test_what_an_earlier_table_tells_is_not_asked_again(systemd: Path) -> None:
    kept = Observations(Asked())
    kept.prefetch([*IDLE, shared_units(["web", "db"]), lively_services(["web"])])
    asked = systemd.read_text()
    assert kept.of(shared_units(["db"], light=["web"], name="fewer"))["db.service"].exists
    assert set(kept.of(lively_services(["web", "db"]))) == {"web.service", "db.service"}
    assert systemd.read_text() == asked and kept.round_trips == 1
    # Another unit and another property are news.
    kept.of(shared_units(["new"]))
    kept.of(shared_units(["web"], properties=["User"]))
    assert kept.round_trips == 3


def test_an_earlier_table_tells_nothing_of_another_epoch_and_of_what_is_asked_anew(
    systemd: Path,
) -> None:
    machine = Asked()
    kept = Observations(machine)
    kept.of(shared_units(["web", "db"]))
    kept.renew([shared_units(["web"])])
    assert kept.round_trips == 2
    machine.epoch += 1
    kept.of(shared_units(["web"]))
    assert kept.round_trips == 3 and len(shows(systemd)) == 3


def test_a_systemd_that_did_not_answer_is_asked_again(systemd: Path) -> None:
    program = systemd.parent / "systemctl"
    answers = program.read_text()
    put(program, "#!/bin/bash\nexit 1\n")
    kept = Observations(Asked())
    assert kept.of(shared_units(["web", "db"])) == {}
    put(program, answers)
    assert kept.of(shared_units(["db"]))["db.service"].exists


def test_what_is_to_come_is_taken_along_by_the_first_table_and_by_no_other(systemd: Path) -> None:
    machine = Asked()
    kept = Observations(machine)
    later = shared_units(["db"], name="later")
    kept.take_along(lambda: [*IDLE, later])
    kept.of(Probe(name="no table", script="true", parse=lambda output: output.text))
    assert not shows(systemd)
    kept.of(shared_units(["web"]))
    assert kept.of(later)["db.service"].exists
    kept.prefetch(IDLE)
    assert kept.round_trips == 2 and len(shows(systemd)) == 1
    machine.epoch += 1
    kept.of(shared_units(["web"]))
    assert shows(systemd)[1][-2:] == ["--", "web.service"]
