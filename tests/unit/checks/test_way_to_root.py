"""Ways by which somebody becomes root."""

from __future__ import annotations

from typing import Any

import pytest

from checks.users.way_to_root import declared_ways, elsewhere, remedy_of, wheel_of
from pytest_nixos import HostConfig
from pytest_nixos.nix.config.declared import User
from tests.unit.standards.samples import host_config

DECLARED = {"users.mutableUsers": False}
BASE = {"services.openssh.enable": True, "security.sudo.enable": True}


def user(name: str, *groups: str, keys: int = 0) -> User:
    return User(
        name=name,
        uid=None,
        is_normal=True,
        is_system=False,
        group="users",
        extra_groups=groups,
        home=f"/home/{name}",
        shell=None,
        authorized_keys=keys,
    )


def host(*users: User, **options: Any) -> HostConfig:
    named = {key.replace("__", "."): value for key, value in options.items()}
    return host_config(users={u.name: u for u in users}, options={**BASE, **named})


ADA = user("ada", "wheel", keys=1)
ROOT = user("root", keys=1)


def test_a_key_is_not_enough_where_sudo_asks_for_a_password() -> None:
    assert list(declared_ways(host(ADA), set())) == []


@pytest.mark.parametrize(
    ("users", "unlocked", "options"),
    [
        ([ADA], {"ada"}, {}),
        ([ADA], {"root"}, {}),
        ([ADA], set(), {"security__sudo__wheelNeedsPassword": False}),
        (
            [ADA, ROOT],
            set(),
            {"services__openssh__settings": {"PermitRootLogin": "prohibit-password"}},
        ),
        ([ADA], set(), {"services__getty__autologinUser": "root"}),
        (
            [ADA],
            set(),
            {
                "security__sudo__extraRules": [
                    {"commands": [{"command": "ALL", "options": ["NOPASSWD"]}]}
                ]
            },
        ),
        (
            [ADA],
            set(),
            {"security__doas__enable": True, "security__doas__extraRules": [{"noPass": True}]},
        ),
    ],
)
def test_each_way_to_root_counts(users: list[User], unlocked: set[str], options: Any) -> None:
    assert list(declared_ways(host(*users, **options), unlocked)) != []


@pytest.mark.parametrize(
    ("users", "unlocked", "options"),
    [
        ([ADA, ROOT], set(), {"services__openssh__settings": {"PermitRootLogin": "no"}}),
        ([ADA, ROOT], set(), {"services__openssh__enable": False}),
        ([user("ada", "wheel")], set(), {"security__sudo__wheelNeedsPassword": False}),
        ([user("ada", keys=1)], {"ada"}, {}),
        ([ADA], {"ada"}, {"security__sudo__enable": False}),
    ],
)
def test_what_leads_nowhere_does_not(users: list[User], unlocked: set[str], options: Any) -> None:
    assert list(declared_ways(host(*users, **options), unlocked)) == []


def test_where_accounts_are_made_by_hand_nothing_is_said() -> None:
    assert elsewhere(host_config()) != ""
    assert elsewhere(host_config(options=DECLARED)) == ""
    assert elsewhere(host_config(options=DECLARED, is_container=True)) != ""
    assert elsewhere(host_config(options={**DECLARED, "users.allowNoPasswordLogin": True})) != ""
    assert elsewhere(host_config(options={**DECLARED, "system.autoUpgrade.enable": True})) != ""


def test_the_remedy_names_somebody_of_wheel() -> None:
    assert wheel_of(host(ADA, ROOT)) == ["ada"]
    assert remedy_of(["ada"]).startswith('users.users."ada".hashedPasswordFile')
    assert remedy_of([]) == ""
