"""Whom the host declares that sshd is not to let in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from checks.ssh.declared import declared_refusal, misspelt_names


@pytest.mark.parametrize(
    ("name", "settings", "by"),
    [
        ("root", {"PermitRootLogin": "no"}, "PermitRootLogin"),
        ("root", {"PermitRootLogin": "prohibit-password"}, ""),
        ("alice", {"PermitRootLogin": "no"}, ""),
        ("alice", {"AllowUsers": ["bob"]}, "AllowUsers"),
        ("alice", {"AllowUsers": ["bob", "a*"]}, ""),
        ("alice", {"AllowUsers": ["alice@192.0.2.*"]}, ""),
        ("alice", {"AllowUsers": "bob alice"}, ""),
        ("alice", {"AllowUsers": None, "AllowGroups": ["wheel"]}, ""),
        ("alice", {"AllowGroups": ["admins"]}, "AllowGroups"),
        ("alice", {"AllowGroups": ["users"]}, ""),
        ("alice", {"DenyUsers": ["alice"]}, "DenyUsers"),
        ("alice", {"DenyUsers": ["alice@192.0.2.1"]}, ""),
        ("alice", {"DenyGroups": ["wh*"], "AllowUsers": ["alice"]}, "DenyGroups"),
        ("alice", {}, ""),
    ],
)
def test_the_setting_that_refuses_somebody(name: str, settings: dict[str, Any], by: str) -> None:
    user = SimpleNamespace(name=name, group="users", extra_groups=("wheel",))
    assert declared_refusal(user, settings) == by


@pytest.mark.parametrize(
    ("settings", "meant"),
    [
        ({"AllowUsers": ["adda"]}, {("AllowUsers", "adda"): "ada"}),
        ({"AllowUsers": "adda@192.0.2.* bob"}, {("AllowUsers", "adda"): "ada"}),
        ({"AllowGroups": ["whel"]}, {("AllowGroups", "whel"): "wheel"}),
        ({"DenyUsers": ["bbob"]}, {("DenyUsers", "bbob"): "bob"}),
        ({"AllowUsers": ["ada", "adam"]}, {}),
        ({"AllowUsers": ["ad*", "bob"], "AllowGroups": ["wheel"]}, {}),
        ({"AllowUsers": ["somebody-from-ldap"]}, {}),
        ({"AllowUsers": None}, {}),
    ],
)
def test_a_name_that_nobody_has_and_one_nearly_has(
    settings: dict[str, Any], meant: dict[tuple[str, str], str]
) -> None:
    assert misspelt_names(settings, ["ada", "bob"], ["wheel", "users"]) == meant
