"""What a service that has not run yet would need and does not find."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from pytest_nixos import Unit
from pytest_nixos.nix.config.declared import FileSystem
from pytest_nixos.observe import unmet_needs
from tests.unit.observe.here import ask, parsed
from tests.unit.standards.samples import host_config, sample_unit

NAME = "job.service"


def lack(unit: Unit, **host: object) -> str:
    """Return why this machine could not start a unit."""
    config = host_config(units={NAME: unit}, **host)
    found = ask(unmet_needs(config, [NAME, "undeclared.service"]))
    assert set(found) <= {NAME}
    return found[NAME].why if found else ""


@pytest.mark.parametrize(
    ("service", "why"),
    [
        ({"User": "nosuchone"}, "its account nosuchone is not there, and the host declares none"),
        ({"User": "nosuchone", "DynamicUser": "true"}, ""),
        ({"User": "root", "Group": "nosuchgroup"}, "its group nosuchgroup is not there"),
        ({"Group": "nosuchgroup", "DynamicUser": "true"}, ""),
        ({"User": "%i"}, ""),
        ({"User": "12345", "Group": "12345"}, ""),
        (
            {"WorkingDirectory": "/srv/nosuch"},
            "it cannot enter its working directory /srv/nosuch",
        ),
        ({"WorkingDirectory": "-/srv/nosuch"}, ""),
        ({"WorkingDirectory": "~"}, ""),
        ({"WorkingDirectory": "/etc"}, ""),
        (
            {"ReadWritePaths": "/etc -/srv/other /srv/nosuch"},
            "/srv/nosuch, which its unit names, is not there",
        ),
        ({"BindPaths": "/srv/nosuch:/mnt"}, "/srv/nosuch, which its unit names, is not there"),
        ({"ReadWritePaths": "/run/nosuch"}, ""),
        ({"ReadWritePaths": "/var/lib/nosuch/data", "StateDirectory": "nosuch"}, ""),
        ({"ReadWritePaths": "/srv/nosuch", "ExecStartPre": "+/bin/mkdir /srv/nosuch"}, ""),
        ({"ReadWritePaths": "/nosuch", "RootDirectory": "/srv/root"}, ""),
    ],
)
def test_what_systemd_would_not_find(service: dict[str, str], why: str) -> None:
    assert lack(sample_unit(NAME, **{key: (value,) for key, value in service.items()})) == why


def test_what_something_else_may_make_until_then() -> None:
    unit = sample_unit(NAME, ReadWritePaths=("/srv/nosuch",))
    assert lack(unit)
    settings = {**unit.settings, "Unit": {"Wants": ("maker.service",)}}
    assert lack(replace(unit, settings=settings)) == ""
    settings = {**unit.settings, "Unit": {"Wants": ("network-online.target",)}}
    assert lack(replace(unit, settings=settings))
    disk = FileSystem(mount_point="/srv", device="/dev/sda1", fs_type="ext4", options=("noauto",))
    assert lack(unit, file_systems={"/srv": disk}) == ""


def test_an_answer_that_is_cut_says_nothing(tmp_path: Path) -> None:
    unit = sample_unit(NAME, WorkingDirectory=(str(tmp_path / "none"),))
    probe = unmet_needs(host_config(units={NAME: unit}), [NAME])
    assert parsed(probe, f"path {tmp_path / 'none'}\n") == {}
