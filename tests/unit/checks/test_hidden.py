"""Paths that a service names and that its own sandbox hides from it."""

from __future__ import annotations

import pytest

from checks.units.hidden import hidden_paths
from tests.unit.standards.samples import sample_unit

SITE = "/bin/serve --directory /home/ada/site"


def paths(**service: str) -> list[str]:
    unit = sample_unit("app.service", **{key: (value,) for key, value in service.items()})
    return [one.path for one in hidden_paths(unit)]


@pytest.mark.parametrize(
    ("service", "found"),
    [
        ({"ExecStart": SITE, "ProtectHome": "true"}, ["/home/ada/site"]),
        ({"ExecStart": SITE, "ProtectHome": "tmpfs"}, ["/home/ada/site"]),
        ({"ExecStart": SITE, "ProtectHome": "read-only"}, []),
        ({"ExecStart": SITE, "ProtectHome": "false"}, []),
        ({"ExecStart": SITE}, []),
        ({"ExecStart": f"+{SITE}", "ProtectHome": "true"}, []),
        ({"ExecStart": SITE, "ProtectHome": "tmpfs", "BindPaths": "/home/ada/site"}, []),
        ({"ExecStart": SITE, "ProtectHome": "tmpfs", "BindPaths": "/srv/s:/home/ada"}, []),
        ({"ExecStart": SITE, "ProtectHome": "true", "RootDirectory": "/srv/root"}, []),
        ({"Environment": '"DATA=/root/data"', "ProtectHome": "yes"}, ["/root/data"]),
        ({"Environment": '"HOME=/root"', "ProtectHome": "yes"}, []),
        ({"ExecStart": "/bin/scan --exclude-dir=/home / --skip '/root'", "ProtectHome": "yes"}, []),
        ({"ExecStart": "/bin/app /homes/x /srv/home/x", "ProtectHome": "yes"}, []),
        (
            {"ExecStart": "/bin/zigbee --port=/dev/ttyUSB0", "PrivateDevices": "true"},
            ["/dev/ttyUSB0"],
        ),
        ({"ExecStart": "/bin/app --log /dev/stdout /dev/null", "PrivateDevices": "true"}, []),
        ({"ExecStart": "/bin/app /dev/ttyUSB0", "PrivateDevices": "false"}, []),
    ],
)
def test_what_is_hidden(service: dict[str, str], found: list[str]) -> None:
    assert paths(**service) == found


def test_what_is_told() -> None:
    unit = sample_unit("app.service", ExecStart=(SITE,), ProtectHome=("true",))
    (one,) = hidden_paths(unit)
    assert str(one) == (
        "app.service: ExecStart= names /home/ada/site, which ProtectHome=true hides from it"
    )
    assert one.remedy.endswith(
        'systemd.services."app".serviceConfig.ProtectHome = lib.mkForce "read-only";'
    )
