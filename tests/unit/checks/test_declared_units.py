"""Which declared units the suite units speaks of, and what it says of odd ones."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from checks.units.declared import (
    accepting_instance,
    failed_requirements,
    missing_program,
    nearest_directive,
    never_elapses,
    never_started,
    own_started_by_others,
    refusals,
)
from checks.units.remedies import instead_of, unrefused
from pytest_nixos import Unit
from pytest_nixos.observe import IgnoredDirective, declared_templates, declared_units
from pytest_nixos.observe.systemd.unit import UnitState
from pytest_nixos.observe.systemd.unit_file import parse_verify
from tests.unit.standards.samples import host_config, sample_unit


def state(name: str = "app.service", **properties: str) -> UnitState:
    return UnitState(name=name, properties={"LoadState": "loaded", **properties})


UNIT = replace(
    sample_unit("app.service", ExecStart=("/bin/app",)), wanted_by=("multi-user.target",)
)


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        ({}, True),
        ({'systemd.units."app.service"': ({}, None)}, False),
        ({'systemd.units."app.service".enabled': (True, False)}, False),
        ({'systemd.units."app.service".wantedBy': (["a.target"], [])}, False),
        ({'systemd.units."app.service".Service.Nice': ("5", None)}, True),
        ({'systemd.units."other.service"': ({}, None)}, True),
    ],
)
def test_units_that_the_machine_leaves_out_say_nothing_about_the_host(
    changed: dict[str, tuple[object, object]], counts: bool
) -> None:
    host = replace(host_config(units={"app.service": UNIT}), changed=changed)
    assert ("app.service" in declared_units(host)) is counts


@pytest.mark.parametrize(
    ("properties", "refused"),
    [
        ({}, False),
        ({"LoadState": "bad-setting", "LoadError": 'x.BadUnitSetting "It is bad."'}, True),
        ({"LoadState": "not-found"}, True),
        ({"LoadState": "masked"}, True),
    ],
)
def test_units_that_systemd_refuses(properties: dict[str, str], refused: bool) -> None:
    found = refusals({"app.service": UNIT}, {"app.service": state(**properties)})
    assert bool(found) is refused
    assert "It is bad." in found.get("app.service", "It is bad.") or properties["LoadState"] != (
        "bad-setting"
    )


@pytest.mark.parametrize(
    ("properties", "told"),
    [
        ({"ActiveState": "inactive"}, True),
        ({"ActiveState": "active"}, False),
        ({"ActiveState": "failed"}, False),
        ({"ActiveState": "inactive", "InactiveExitTimestampMonotonic": "7"}, False),
        (
            {
                "ActiveState": "inactive",
                "ConditionTimestampMonotonic": "7",
                "ConditionResult": "no",
            },
            False,
        ),
    ],
)
def test_wanted_units_that_never_started(properties: dict[str, str], told: bool) -> None:
    units, states = {"app.service": UNIT}, {"app.service": state(**properties)}
    assert bool(never_started(units, states, ["multi-user.target"])) is told
    assert never_started(units, states, ["graphical.target"]) == {}


def test_a_unit_that_waits_for_a_failed_one_by_way_of_another() -> None:
    def needs(*required: str) -> Unit:
        return replace(UNIT, settings={"Unit": {"Requires": (" ".join(required),)}})

    units = {"a.service": needs("b.service", "a.service"), "b.service": needs("db.service")}
    failed = state("db.service", ActiveState="failed")
    states = {"b.service": state("b.service", ActiveState="inactive"), "db.service": failed}
    assert failed_requirements("a.service", units, states) == {"db.service"}
    assert failed_requirements("db.service", units, states) == frozenset()
    states["db.service"] = state("db.service", ActiveState="active")
    assert failed_requirements("a.service", units, states) == frozenset()


def test_a_unit_that_makes_itself_required() -> None:
    failed = state("certs.service", ActiveState="failed", RequiredBy="web.service a.service")
    states = {"certs.service": failed, "web.service": state("web.service", ActiveState="inactive")}
    assert failed_requirements("web.service", {}, states) == {"certs.service"}
    assert failed_requirements("eb.service", {}, states) == frozenset()


def test_timers_that_never_elapse() -> None:
    timer = state("t.timer", ActiveState="active", SubState="elapsed")
    assert "no next time" in never_elapses("t.timer", timer, None)
    due = state("t.timer", ActiveState="active", NextElapseUSecRealtime="Sun 2026-11-29")
    assert never_elapses("t.timer", due, None) == ""
    gone = UnitState(name="x.service", properties={"LoadState": "not-found"})
    assert "could not load" in never_elapses("t.timer", due, gone)


def test_the_directive_that_was_meant() -> None:
    assert nearest_directive("ProtectSytem", ["ProtectSystem", "PrivateTmp"]) == "ProtectSystem"
    assert nearest_directive("Zebra", ["ProtectSystem"]) == ""


def unit(name: str, section: str, **settings: str) -> Unit:
    return replace(sample_unit(name), settings={section: {k: (v,) for k, v in settings.items()}})


def test_a_template_is_declared_as_well() -> None:
    template = replace(sample_unit("job@.service"), enabled=True)
    off = replace(sample_unit("off@.service"), enabled=False)
    host = host_config(units={u.name: u for u in (template, off, UNIT)})
    assert declared_templates(host) == {"job@.service"}


def test_a_socket_that_accepts_starts_an_instance_of_its_template() -> None:
    assert accepting_instance(unit("a.socket", "Socket", Accept="yes")) == "a@test.service"
    assert accepting_instance(unit("a.socket", "Socket", Accept="false")) == ""
    assert accepting_instance(unit("a.socket", "Socket", ListenStream="22")) == ""


@pytest.mark.parametrize(
    ("program", "missing"),
    [
        ("/nix/store/x/bin/backup", True),
        ("backup", True),
        # What runs here may be put there while the host runs.
        ("/var/lib/app/bin/app", False),
        ("/run/app/app", False),
    ],
)
def test_a_program_that_is_not_there(program: str, missing: bool) -> None:
    line = f"backup.service: Command {program} is not executable: No such file or directory"
    said = missing_program("backup.service", parse_verify(line, answered=True))
    assert bool(said) is missing
    assert program in said or not missing
    assert missing_program("other.service", parse_verify(line, answered=True)) == ""


@pytest.mark.parametrize(
    ("of", "key", "text", "meant", "remedy"),
    [
        (
            unit("a.slice", "Slice", MemoryMaxx="1G"),
            "MemoryMaxx",
            "Unknown key 'MemoryMaxx' in section [Slice], ignoring.",
            "MemoryMax",
            'systemd.slices."a".sliceConfig.MemoryMax = "1G";',
        ),
        (
            unit("a.service", "Service", MemoryMax="2GG"),
            "",
            "Invalid memory limit '2GG', ignoring: Invalid argument",
            "",
            '# systemd.services."a".serviceConfig.MemoryMax',
        ),
        (
            unit("a.path", "Path", PathExist="/run/a"),
            "PathExist",
            "Unknown key 'PathExist' in section [Path], ignoring.",
            "",
            '# systemd.paths."a".pathConfig.PathExist',
        ),
        (
            unit("a.service", "Service", After="network.target b.service"),
            "After",
            "Unknown key 'After' in section [Service], ignoring.",
            "After",
            'systemd.services."a".after = [ "network.target" "b.service" ];',
        ),
        (
            unit("a.timer", "Timer", ConditionPathExists="/data"),
            "ConditionPathExists",
            "Unknown key 'ConditionPathExists' in section [Timer], ignoring.",
            "ConditionPathExists",
            'systemd.timers."a".unitConfig.ConditionPathExists = "/data";',
        ),
        (
            unit("a.service", "Service"),
            "Srevice",
            "Unknown section 'Srevice'. Ignoring.",
            "",
            "# systemd.directives(7) lists every name and what it takes.",
        ),
    ],
)
def test_the_remedy_of_a_line_that_systemd_ignores(
    of: Unit, key: str, text: str, meant: str, remedy: str
) -> None:
    ignored = IgnoredDirective(unit=of.name, line=3, key=key, text=text)
    said = instead_of(ignored, of, meant)
    assert said.splitlines()[0] == f"# {of.name}, line 3: {text}"
    assert said.splitlines()[-1] == remedy


@pytest.mark.parametrize(
    ("name", "said", "why", "remedy"),
    [
        (
            "once.service",
            "Service has Restart= set to either always or on-success, which isn't allowed for Type=oneshot services. Refusing.",
            "Service has Restart= set to either always",
            'systemd.services."once".serviceConfig.Restart = lib.mkForce "on-failure";',
        ),
        (
            "two.service",
            "Service has more than one ExecStart= setting, which is only allowed for Type=oneshot services. Refusing.",
            "Service has more than one ExecStart=",
            'systemd.services."two".serviceConfig.ExecStart = lib.mkForce [ "" "the one that counts" ];',
        ),
        (
            "backup.timer",
            "Timer unit lacks value setting. Refusing.",
            "Timer unit lacks value setting",
            'systemd.timers."backup".timerConfig.OnCalendar = lib.mkForce "daily";',
        ),
        (
            "door.socket",
            "Unit has something new. Refusing.",
            "",
            "systemd-analyze verify --man=no door.socket",
        ),
        ("door.socket", "Socket is odd. Refusing.", "Socket is odd. Refusing.", "# door.socket"),
        ("door.socket", "", "", "# door.socket"),
    ],
)
def test_why_systemd_refuses_a_unit(name: str, said: str, why: str, remedy: str) -> None:
    texts = [text for text in (said, f"Unit {name} has a bad unit file setting.") if text]
    reason, mended = unrefused(name, texts)
    assert reason.startswith(why)
    assert bool(reason) is bool(why)
    assert remedy in mended


@pytest.mark.parametrize(
    ("written", "unit", "meant"),
    [
        ("OnCalender", "a.timer", "OnCalendar"),
        ("ConditionPathExist", "a.service", "ConditionPathExists"),
        ("RestrtSec", "a.service", "RestartSec"),
        ("TimeoutStartSecs", "a.service", "TimeoutStartSec"),
        ("ListenStreem", "a.socket", "ListenStream"),
        ("OnCalender", "a.service", ""),
        ("Cndtn", "a.service", ""),
    ],
)
def test_a_directive_that_systemctl_calls_otherwise_is_found(
    written: str, unit: str, meant: str
) -> None:
    shown = ("RestartUSec", "TimeoutStartUSec", "Conditions", "TimersCalendar", "Restart")
    assert nearest_directive(written, shown, unit) == meant


def test_what_nixpkgs_declares_alone_need_not_be_started() -> None:
    services = ("nix-gc.service", "backup.service")
    units = {name: sample_unit(name, ExecStart=("/bin/true",)) for name in services}
    units["backup.timer"] = sample_unit("backup.timer")
    # A few settings for a unit that a package may bring.
    units["parts.service"] = sample_unit("parts.service", Nice=("5",))
    host = host_config(units=units)
    own = replace(host, own_services=frozenset({"backup.service", "parts.service"}))
    assert list(own_started_by_others(own)) == ["backup.service", "backup.timer"]
    # Where nobody knows whose they are, every one counts.
    everything = ["backup.service", "backup.timer", "nix-gc.service"]
    assert list(own_started_by_others(host)) == everything


def prefix_slice(*, drop_in: bool, **settings: tuple[str, ...]) -> Unit:
    return Unit(
        name="user-.slice",
        enabled=True,
        settings={"Slice": settings} if settings else {},
        wanted_by=(),
        is_drop_in=drop_in,
    )


@pytest.mark.parametrize(
    ("unit", "must_load"),
    [
        (prefix_slice(drop_in=False), False),  # as nixpkgs 24.05 declares it on every host
        (prefix_slice(drop_in=True, MemoryMax=("1G",)), False),
        (prefix_slice(drop_in=False, MemoryMax=("1G",)), True),
    ],
)
def test_a_prefix_of_slices_is_no_unit_of_its_own(unit: Unit, must_load: bool) -> None:
    host = host_config(units={unit.name: unit})
    assert (unit.name in declared_units(host)) is must_load
    assert (unit.name in declared_templates(host)) is not must_load


def test_the_root_slice_and_any_other_kind_are_units_whatever_their_last_letter() -> None:
    names = ("-.slice", "app-.service")
    units = {
        name: Unit(name=name, enabled=True, settings={}, wanted_by=(), is_drop_in=True)
        for name in names
    }
    assert set(declared_units(host_config(units=units))) == set(names)


def test_settings_of_a_prefix_of_slices_that_is_no_drop_in_are_told_as_lost() -> None:
    said = ["Unit user-.slice failed to load properly, please adjust/correct and reload"]
    reason, remedy = unrefused("user-.slice", said)
    assert "its settings are nowhere in force" in reason
    assert remedy == 'systemd.slices."user-".overrideStrategy = lib.mkForce "asDropin";'
