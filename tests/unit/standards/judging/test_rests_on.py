"""Data controls of a service rest on its unit; those that read settings do not."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_nixos.findings import Severity
from pytest_nixos.standards.control.model import Control, ObservedSpec
from pytest_nixos.standards.judging.rests_on import rests_on_units
from pytest_nixos.standards.load import load_catalogue


def control(kind: str, **parameters: Any) -> Control:
    return Control(
        id="X-001",
        suite="x",
        title="",
        severity=Severity.LOW,
        threat="",
        remedies=(),
        observed=ObservedSpec(kind=kind, parameters=parameters),
    )


@pytest.mark.parametrize(
    ("one", "units"),
    [
        (control("process", units=["a.service"], field="environment"), ["unit:a.service"]),
        (
            control("http", url="http://{services.nats.host|x}:{services.nats.port|1}/varz"),
            ["unit:nats.service"],
        ),
        (control("http", url="http://127.0.0.1:80/"), []),
        (
            control("http", url="http://[::1]:{services.prometheus.exporters.node.port|9100}/"),
            ["unit:prometheus-node-exporter.service"],
        ),
        (control("socket", port="{services.nats.settings.http_port|8222}"), ["unit:nats.service"]),
        (control("socket", port="22"), []),
        (control("unit-property", unit="a.service", property="ActiveState"), ["unit:a.service"]),
        (control("unit-property", unit="a.service", property="MemoryMax"), []),
        (control("unit-exposure", units=["a.service"]), []),
        (control("sysctl", name="kernel.sysrq"), []),
        (control("audit", watches=["/etc/passwd"]), ["unit:auditd.service"]),
        (load_catalogue().control("AUD-001"), []),
    ],
)
def test_units_of_a_control(one: Control, units: list[str]) -> None:
    assert [str(subject) for subject in rests_on_units(one)] == units


def test_every_http_control_of_the_catalogue_names_its_service() -> None:
    asked = [c for c in load_catalogue() if c.observed is not None and c.observed.kind == "http"]
    assert asked
    assert all(rests_on_units(c) for c in asked)


def test_a_host_without_auditd_has_one_cause() -> None:
    catalogue = load_catalogue()
    rules = [c for c in catalogue if c.observed is not None and c.observed.kind == "audit"]
    echoes = [c for c in rules if rests_on_units(c) == catalogue.control("AUD-001").blames]
    assert {c.id for c in rules} - {c.id for c in echoes} == {"AUD-001"}
    assert len(echoes) >= 16
