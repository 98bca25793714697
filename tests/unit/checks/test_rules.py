"""Rules of sudo and doas that give nothing to anybody."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from checks.users.lists import named_in_options
from checks.users.rules import There, doas_rules, slips, sudo_rules
from pytest_nixos.nix.config.declared import User
from tests.unit.standards.samples import host_config

SW = "/run/current-system/sw/bin"
THERE = There(
    users=["root", "ada", "bob"],
    groups=["root", "wheel", "users"],
    files=[f"{SW}/systemctl"],
    programs=["systemctl", "journalctl", "sh"],
)


def sudo(there: There = THERE, **rule: Any) -> list[str]:
    given = [{"users": [], "groups": [], "runAs": "ALL:ALL", "commands": ["ALL"], **rule}]
    return [str(slip) for slip in slips([*sudo_rules(given)], there)]


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"users": ["adda"]}, "adda: no such account (meant: ada?)"),
        ({"groups": ["whell"]}, "whell: no such group (meant: wheel?)"),
        ({"users": ["ada"], "runAs": "postgres"}, "postgres: no such account"),
        (
            {"commands": [{"command": f"{SW}/systemctll restart nginx", "options": ["NOPASSWD"]}]},
            f"{SW}/systemctll: no such program (meant: {SW}/systemctl?)",
        ),
        (
            {"commands": ["/usr/bin/journalctl"]},
            f"/usr/bin/journalctl: no such program (meant: {SW}/journalctl?)",
        ),
        ({"commands": ["/usr/sbin/iptables -L"]}, "/usr/sbin/iptables: no such program"),
    ],
)
def test_a_rule_about_nobody_or_nothing_is_told(rule: Any, told: str) -> None:
    assert sudo(**rule) == [told]


@pytest.mark.parametrize(
    "rule",
    [
        {"users": ["ada", 1000, "ALL", "#1001", "+admins", "!eve"], "groups": ["wheel", 100]},
        {"users": ["ada"], "runAs": "bob:users"},
        {"commands": [f"{SW}/systemctl restart nginx", "ALL", "sudoedit /etc/x", "!/usr/bin/su"]},
        {"commands": ["/home/ada/deploy", "/opt/x/run", "/usr/local/bin/x", "/usr/bin/*", "POWER"]},
        {"users": ["nobody-here"], "commands": []},
    ],
)
def test_what_a_rule_may_say_is_not_told(rule: Any) -> None:
    assert not sudo(**rule)


def test_where_a_domain_knows_accounts_only_a_slip_of_the_pen_is_told() -> None:
    domain = replace(THERE, is_all=False)
    assert sudo(domain, users=["carol", "adda"], groups=["domain-admins"]) == [
        "adda: no such account (meant: ada?)"
    ]


def test_rules_of_doas() -> None:
    given = [{"users": ["adda"], "groups": ["wheel"], "runAs": "root", "cmd": "/usr/bin/reboot"}]
    assert [str(slip) for slip in slips([*doas_rules(given)], THERE)] == [
        "/usr/bin/reboot: no such program",
        "adda: no such account (meant: ada?)",
    ]
    plain = [{"users": ["ada"], "runAs": None, "cmd": "systemctl", "groups": None}]
    assert not slips([*doas_rules(plain)], THERE)
    assert not [*doas_rules(None)]


def listed(option: str, value: Any) -> list[str]:
    named = named_in_options(host_config(options={option: value}))
    return [f"{where}: {slip}" for where, rule in named for slip in slips([rule], THERE)]


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        (
            "security.pam.loginLimits",
            [{"domain": name} for name in ("ada", "@whel", "*", "1000:", "@100:200", "%users")],
            ["security.pam.loginLimits: whel: no such group (meant: wheel?)"],
        ),
        (
            "services.cron.systemCronJobs",
            ["*/5 * * * * ada true", "@daily adda true", "0 3 * * cut"],
            ["services.cron.systemCronJobs: adda: no such account (meant: ada?)"],
        ),
        (
            "users.groups",
            {"media": {"members": ["adda", "bob"]}, "empty": {}},
            ['users.groups."media".members: adda: no such account (meant: ada?)'],
        ),
        (
            "nix.settings.trusted-users",
            ["root", "*", "@wheel", "adda"],
            ["nix.settings.trusted-users: adda: no such account (meant: ada?)"],
        ),
        (
            "nix.settings.allowed-users",
            "@users @nixbldd",
            ["nix.settings.allowed-users: nixbldd: no such group"],
        ),
        (
            "services.getty.autologinUser",
            "eve",
            ["services.getty.autologinUser: eve: no such account"],
        ),
        ("services.getty.autologinUser", None, []),
    ],
)
def test_lists_of_options_are_read_as_they_are_written(
    option: str, value: Any, told: list[str]
) -> None:
    assert listed(option, value) == told


def test_an_account_that_is_switched_off_may_be_named() -> None:
    off = User(
        name="eve",
        uid=None,
        is_normal=True,
        is_system=False,
        group="users",
        extra_groups=("media",),
        home="/home/eve",
        shell=None,
        authorized_keys=0,
        enabled=False,
    )
    options = {"users.groups": {"media": {"members": ["eve"]}}}
    assert list(named_in_options(host_config(users={"eve": off}, options=options))) == []
