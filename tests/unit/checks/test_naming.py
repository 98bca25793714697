"""Names of units that are not there, and that were meant to be."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from checks.units.idle import OF_SYSTEMD
from checks.units.naming import asked_names, remedy_of, slip_of, unknown_names
from pytest_nixos import Unit
from tests.unit.standards.samples import sample_unit

KNOWN = sorted(
    {*OF_SYSTEMD, "postgresql.service", "redis-a.service", "wg-quick-wg0.service", "app.service"}
    | {"dbus.service", "nginx.service", "notify-email@.service"}
)


def unit(**settings: str) -> Unit:
    return replace(
        sample_unit("app.service"), settings={"Unit": {k: (v,) for k, v in settings.items()}}
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("network-onlin.target", "network-online.target"),
        ("network-online.traget", ""),
        ("netwrok-online.target", "network-online.target"),
        ("postgresq.service", "postgresql.service"),
        ("network.service", "network.target"),
        ("mysql.service", ""),
        ("redis-b.service", ""),
        ("networkonline.target", "network-online.target"),
        ("wg-quick-wg1.service", ""),
        ("network-pre.target", ""),
        ("ap.service", ""),
        ("dbase.service", ""),
        ("nigixn.service", ""),
        ("nignx.service", "nginx.service"),
    ],
)
def test_a_slip_of_the_pen_is_told_from_another_unit(written: str, meant: str) -> None:
    assert slip_of(written, KNOWN) == meant


def told(*missing: str, **settings: str) -> list[str]:
    declared = {"app.service": unit(**settings)}
    assert set(missing) <= asked_names(declared)
    return [str(one) for one in unknown_names(declared, missing, KNOWN)]


def test_what_is_absent_may_be_named_but_for_an_alarm() -> None:
    assert told("mysql.service", After="mysql.service postgresql.service") == []
    assert told("alarm.service", OnFailure="alarm.service") == [
        "app.service: OnFailure=alarm.service, which is not there"
    ]
    assert told("alarm@test.service", OnFailure="alarm@%n.service") != []
    assert told("plymouth-quit.service", OnFailure="plymouth-quit.service") == []


def test_a_misspelt_template_keeps_its_instance() -> None:
    (text,) = told("notify-emial@test.service", OnFailure="notify-emial@%n.service")
    assert text.endswith("(meant: notify-email@%n.service?)")


def test_a_name_beside_the_one_that_it_is_near_is_no_slip() -> None:
    assert told("postgresq.service", After="postgresq.service")
    assert told("postgresq.service", After="postgresq.service postgresql.service") == []


def test_the_remedy_keeps_the_other_names() -> None:
    declared = {"app.service": unit(After="network.target postgresq.service")}
    (one,) = unknown_names(declared, ["postgresq.service"], KNOWN)
    assert remedy_of(one, declared["app.service"]) == (
        'systemd.services."app".after = lib.mkForce [ "network.target" "postgresql.service" ];'
    )
    declared = {"app.service": unit(OnFailure="alarm.service")}
    (one,) = unknown_names(declared, ["alarm.service"], KNOWN)
    assert 'systemd.services."alarm"' in remedy_of(one, declared["app.service"])
