"""Memberships that are declared and that a machine does not have."""

from __future__ import annotations

from msgspec.structs import replace

from checks.users.groups import missing_memberships, read_groups, with_groups
from pytest_nixos import HostConfig
from pytest_nixos.nix.config.declared import User
from tests.unit.standards.samples import host_config

GROUPS = read_groups("root:x:0:\nwheel:x:1:ada,bob\nusers:x:100:\nvideo:x:26:bob\nnonsense\n")


def person(name: str, *groups: str, enabled: bool = True) -> User:
    return User(
        name=name, uid=None, is_normal=True, is_system=False, group="users", extra_groups=groups,
        home=f"/home/{name}", shell=None, authorized_keys=0, enabled=enabled,
    )  # fmt: skip


def host(*people: User) -> HostConfig:
    return replace(host_config(), users={user.name: user for user in people})


def test_a_group_that_nothing_declares_is_named_with_the_one_that_is_meant() -> None:
    of = host(person("ada", "wheel", "vidoe", "dokcer", "libvirtd", "press", "users"))
    missing = missing_memberships(of, GROUPS)
    assert missing == {
        "ada": {
            "vidoe": "no such group (meant: video?)",
            "dokcer": "no such group (meant: docker?)",
            "libvirtd": "no such group",
            "press": "no such group",
        }
    }
    assert with_groups(of, missing, GROUPS).splitlines() == [
        "# The group docker comes with virtualisation.docker.enable = true;",
        "# The group libvirtd comes with virtualisation.libvirtd.enable = true;",
        'users.users."ada".extraGroups = lib.mkForce [ "wheel" "video" "users" ];',
    ]


def test_a_group_that_is_there_without_its_member() -> None:
    of = host(person("ada", "video"))
    missing = missing_memberships(of, GROUPS)
    assert missing == {"ada": {"video": "is not a member"}}
    assert with_groups(of, missing, GROUPS) == ""


def test_whom_nothing_is_wrong_with() -> None:
    people = (person("bob", "wheel", "video"), person("gone", "nowhere", enabled=False))
    assert missing_memberships(host(*people), GROUPS) == {}
