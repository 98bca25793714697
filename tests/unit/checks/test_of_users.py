"""Units of users that no login starts, and what mends those that are wrong."""

from __future__ import annotations

import pytest

from checks.units.of_users import remedy_of_user_units, wanted_by_none
from pytest_nixos.observe import UserUnits
from pytest_nixos.observe.systemd.user_unit import user_units
from tests.unit.observe.here import parsed


def seen(*wants: str, said: str = "") -> UserUnits:
    text = f"=count 1\n=said\n{said}\n=wants\n" + "\n".join(wants) + "\n=dangling\n"
    return parsed(user_units(), text)


@pytest.mark.parametrize(
    ("wants", "meant"),
    [
        (["no multi-user.target sync.service"], {"sync.service": "default.target"}),
        (["no default.targt sync.service"], {"sync.service": "default.target"}),
        (["no graphical-sesion.target a.service"], {"a.service": "graphical-session.target"}),
        (["yes default.target a.service", "no multi-user.target a.service"], {}),
        (["no sway-session.target a.service"], {}),
        (["no sockets.target a.socket"], {}),
        (["junk"], {}),
    ],
)
def test_a_target_that_no_user_has(wants: list[str], meant: dict[str, str]) -> None:
    assert wanted_by_none(seen(*wants)) == meant


def test_each_is_mended_by_its_own_option() -> None:
    said = "/etc/systemd/user/tidy.timer:2: Failed to parse calendar specification, ignoring: dayly"
    text = remedy_of_user_units(seen("no multi-user.target sync.service", said=said))
    assert 'systemd.user.services."sync".wantedBy = lib.mkForce [ "default.target" ];' in text
    assert 'systemd.user.timers."tidy".timerConfig.OnCalendar = lib.mkForce "daily";' in text
    assert "enable = false" not in text
