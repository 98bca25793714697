"""Unix sockets that a service is told to reach and may not write."""

from __future__ import annotations

import pytest

from checks.network.admitted import Refusal, asked, read_refusals, remedy_of
from pytest_nixos import Unit
from tests.unit.standards.samples import sample_unit


def unit(name: str, **service: str) -> Unit:
    return sample_unit(name, **{key: (value,) for key, value in service.items()})


def refusal(steps: str, groups: str = "nginx", what: str = "denied") -> Refusal:
    (found,) = read_refusals(f"42\0/run/app/app.sock\0{what}\0{steps}\0{groups}\n\0".encode())
    return found


def test_what_is_asked() -> None:
    asks = asked({("42", "/run/b"), ("41", "/run/a")})
    assert asks.split(b"\0") == [b"41", b"/run/a", b"42", b"/run/b", b""]
    assert list(read_refusals(b"")) == []


SERVERS = {"app.service": unit("app.service", RuntimeDirectory="app")}
NGINX = unit("nginx.service", User="nginx")


@pytest.mark.parametrize(
    ("steps", "told", "remedy"),
    [
        (
            "660 app app /run/app/app.sock\n750 app app /run/app\n755 root root /run\n",
            "and may not: /run/app/app.sock is app:app 0660, /run/app is app:app 0750",
            'users.users."nginx".extraGroups = [ "app" ];',
        ),
        # Its folder is nobody else's, and neither is the socket.
        (
            "755 app nginx /run/app/app.sock\n700 app app /run/app\n755 root root /run\n",
            "and may not: /run/app/app.sock is app:nginx 0755, /run/app is app:app 0700",
            (
                'systemd.services."app".serviceConfig.UMask = lib.mkForce "0007";\n'
                'systemd.services."app".serviceConfig.RuntimeDirectoryMode = lib.mkForce "0750";'
            ),
        ),
        (
            "777 app app /run/app/app.sock\n750 root root /run/app\n",
            "and may not: /run/app is root:root 0750",
            "",
        ),
    ],
)
def test_what_keeps_a_service_out(steps: str, told: str, remedy: str) -> None:
    found = refusal(steps)
    assert found.told() == told
    assert remedy_of(found, NGINX, SERVERS) == remedy


def test_an_account_that_systemd_makes_gets_the_group_by_its_unit() -> None:
    found = refusal("660 app app /run/app/app.sock\n")
    client = unit("web.service", DynamicUser="true", User="web")
    assert remedy_of(found, client, {}) == (
        'systemd.services."web".serviceConfig.SupplementaryGroups = [ "app" ];'
    )
    closed = refusal("700 app app /run/app/app.sock\n")
    assert remedy_of(closed, client, {}).startswith(
        "# /run/app/app.sock is 0700: have what makes it"
    )


def test_a_tmp_of_its_own_hides_the_socket() -> None:
    fields = (b"42", b"/tmp/app.sock", b"unseen", b"777 app app /tmp/app.sock", b"nginx", b"")
    (found,) = read_refusals(b"\0".join(fields))
    assert found.told() == "which is not in its view of the file system"
    assert "PrivateTmp= gives it a /tmp of its own" in remedy_of(found, NGINX, SERVERS)
