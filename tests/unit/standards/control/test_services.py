"""What a host is there for."""

from __future__ import annotations

from pytest_nixos.standards.control.services import application_services, unit_environment
from tests.unit.standards.samples import host_config, sample_unit


def test_application_services_are_what_the_host_is_there_for() -> None:
    names = [
        "web.service",
        "sshd.service",
        "systemd-oomd.service",
        "getty@tty1.service",
        "job.service",
        "web.timer",
    ]
    units = {name: sample_unit(name) for name in names}
    units["job.service"] = sample_unit("job.service", Type=("oneshot",))
    assert application_services(host_config(units=units)) == ("web.service",)


def test_the_environment_of_a_unit() -> None:
    unit = sample_unit("a.service", Environment=('"A=b c" D=e', "F=g"))
    assert unit_environment(unit) == {"A": "b c", "D": "e", "F": "g"}
