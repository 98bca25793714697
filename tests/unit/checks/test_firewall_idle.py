"""Open ports without a listener, and what is told to mend each."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from checks.firewall.idle import (
    CutOff,
    WhyIdle,
    cut_off,
    refused_by_unit,
    remedy_of_idle,
    told_idle,
)
from checks.firewall.servers import NAMED, parse_named, servers_of, struggling
from pytest_nixos import Machine, PortRange, observe
from pytest_nixos.observe.systemd.unit import UnitState
from tests.unit.standards.samples import host_config, sample_unit

IDLE = [
    PortRange(first=443, last=443),
    PortRange(first=8010, last=8000),
    PortRange(first=9000, last=9100),
]
INSIDE = cast(
    "observe.Sockets",
    SimpleNamespace(listening=lambda _: [SimpleNamespace(port=443, is_loopback=True)]),
)

ONE = [PortRange(first=9000, last=9000)]
NOTHING = cast("observe.Sockets", SimpleNamespace(listening=lambda _: []))


def test_each_is_told_with_what_is_known_of_it() -> None:
    assert list(told_idle(IDLE, WhyIdle(INSIDE))) == [
        "443 (something listens there on the loopback only)",
        "8010-8000 (no port: it ends before it begins)",
        "9000-9100",
    ]


def test_the_remedy_is_of_each_and_opens_nothing() -> None:
    first, second, third, where = remedy_of_idle(IDLE, WhyIdle(INSIDE)).splitlines()
    assert "443: have what listens on the loopback" in first
    assert "{ from = 8000; to = 8010; }" in second
    assert "9000-9100: have its service started" in third
    assert "allowedTCPPorts" in where
    assert remedy_of_idle([], WhyIdle(INSIDE)) == ""


def test_a_service_in_a_network_of_its_own() -> None:
    unit = sample_unit(
        "web.service", PrivateNetwork=("true",), ExecStart=("/bin/web --listen 0.0.0.0:9000 -w 3",)
    )
    alone = cut_off(host_config(units={"web.service": unit}))
    assert alone == {9000: CutOff("web.service", "PrivateNetwork")}
    assert list(told_idle(IDLE, WhyIdle(INSIDE, alone)))[2].endswith(
        "(web.service has a network of its own, PrivateNetwork=)"
    )
    assert (
        'systemd.services."web".serviceConfig.PrivateNetwork = lib.mkForce false;'
        in remedy_of_idle(IDLE, WhyIdle(INSIDE, alone))
    )
    shared = sample_unit("web.service", PrivateNetwork=("no",), ExecStart=("/bin/web 9000",))
    assert cut_off(host_config(units={"web.service": shared})) == {}


@pytest.mark.parametrize(
    ("allow", "is_cut_off"),
    [
        ("localhost", True),
        ("127.0.0.0/8 ::1/128", True),
        ("", True),
        ("localhost 10.0.0.0/8", False),
        ("any", False),
    ],
)
def test_a_service_that_takes_packets_of_its_own_machine_only(allow: str, is_cut_off: bool) -> None:
    unit = sample_unit(
        "web.service",
        IPAddressDeny=("any",),
        IPAddressAllow=(allow,),
        ExecStart=("/bin/web 9000",),
    )
    alone = cut_off(host_config(units={"web.service": unit}))
    assert bool(alone) is is_cut_off
    assert [str(ports) for ports in refused_by_unit(ONE, alone)] == ["9000"] * is_cut_off
    assert list(refused_by_unit(IDLE, alone)) == []  # a range is for more than this service
    if is_cut_off:
        (told,) = told_idle(ONE, WhyIdle(NOTHING, alone))
        assert told == "9000 (web.service takes packets of its own machine only, IPAddressDeny=)"
        assert "IPAddressAllow" in remedy_of_idle(ONE, WhyIdle(NOTHING, alone))


def test_services_that_do_not_stay_up() -> None:
    def state(name: str, **properties: str) -> UnitState:
        return UnitState(name=name, properties=properties)

    kinds = {
        "failed": {"ActiveState": "failed"},
        "between": {"ActiveState": "activating", "SubState": "auto-restart"},
        "often": {"ActiveState": "active", "SubState": "running", "NRestarts": "9"},
        "well": {"ActiveState": "active", "SubState": "running", "NRestarts": "1"},
    }
    host = host_config(units={f"{n}.service": sample_unit(f"{n}.service") for n in kinds})
    states = {f"{n}.service": state(f"{n}.service", **p) for n, p in kinds.items()}
    assert set(struggling(host, states)) == {"failed.service", "between.service", "often.service"}


def test_what_opens_a_port_is_not_what_should_listen_there() -> None:
    failed = UnitState(name="firewall.service", properties={"ActiveState": "failed"})
    host = host_config(units={failed.name: sample_unit(failed.name)})
    assert struggling(host, {failed.name: failed}) == ()


def test_the_service_that_names_a_port_is_why_it_is_silent(tmp_path: Path) -> None:
    config = tmp_path / "etc" / "web.conf"
    config.parent.mkdir()
    config.write_text("listen 0.0.0.0:443;\n")
    text = NAMED.format(files=str(config), ports="443 9000 44")
    said = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True).stdout
    assert parse_named(said) == {str(config): frozenset({443})}

    named = "/nix/store/x-web.conf"
    machine = cast(
        "Machine",
        SimpleNamespace(run=lambda _: SimpleNamespace(stdout_text=f"443 {named}\n")),
    )
    web = sample_unit("web.service", ExecStart=(f"/nix/store/y-web/bin/web -c '{named}'",))
    db = sample_unit("db.service", Environment=("PORT=9000",))
    other = sample_unit("other.service", ExecStart=("/bin/other 80",))
    host = host_config(units={u.name: u for u in (web, db, other)})
    found = servers_of(IDLE, host, tuple(host.units), machine)
    assert found == {IDLE[0]: ("web.service",), IDLE[2]: ("db.service",)}
    assert servers_of(IDLE, host, (), machine) == {}
    why = WhyIdle(INSIDE, servers=found)
    assert "443 (web.service, which should listen there, does not stay up)" in told_idle(IDLE, why)
    assert "journalctl -b -u db.service" in remedy_of_idle(IDLE, why)
