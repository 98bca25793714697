"""Ways by which a person becomes root on a host whose accounts are declared as a whole."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pytest_nixos import HostConfig

__all__ = ["declared_ways", "elsewhere", "remedy_of", "wheel_of"]

Json = Any

# Who rebuilds the host without anybody's login, or lets people in by other rules (options of nixpkgs).
_BY_ITSELF = (
    "system.autoUpgrade.enable",
    "services.comin.enable",
    "services.tailscale.enable",
    "security.googleOsLogin.enable",
)


def elsewhere(host: HostConfig) -> str:
    """Return why nothing can be said about ways to root, ``""`` where they are declared."""
    if host.option("users.mutableUsers").value is not False:
        return "passwords may be set by hand (users.mutableUsers)"
    if host.option("users.allowNoPasswordLogin").value is True:
        return "the host wants nobody to log in (users.allowNoPasswordLogin)"
    if host.is_container:
        return "whoever runs the container is root in it"
    for option in _BY_ITSELF:
        if host.option(option).value is True:
            return f"there is another way to change the host ({option})"
    return ""


def declared_ways(host: HostConfig, unlocked: Collection[str]) -> Iterator[str]:
    """Yield each way by which somebody becomes root.

    :param unlocked: accounts with a password that opens them.
    """
    keys = {u.name for u in host.users.values() if u.enabled and u.authorized_keys}
    by_ssh = keys if host.option("services.openssh.enable").value is True else set()
    if "root" in unlocked:
        yield "root has a password"
    settings = host.option("services.openssh.settings").value or {}
    if "root" in by_ssh and settings.get("PermitRootLogin") not in ("no", False):
        yield "root has a key"
    if host.option("services.getty.autologinUser").value == "root":
        yield "root is logged in at boot"
    people = {*unlocked, *by_ssh}
    for program in ("sudo", "sudo-rs", "doas"):
        if host.option(f"security.{program}.enable").value is True:
            yield from _by_program(host, program, people, unlocked)


def wheel_of(host: HostConfig) -> list[str]:
    """Return the members of wheel."""
    return sorted(
        u.name for u in host.users.values() if u.enabled and "wheel" in (u.group, *u.extra_groups)
    )


def remedy_of(wheel: Collection[str]) -> str:
    """Return module text by which a member of wheel becomes root, ``""`` where there is none."""
    user = min(wheel, default="")
    if not user:
        return ""
    return (
        f'users.users."{user}".hashedPasswordFile = "/run/secrets/password-of-{user}";\n'
        "# or, for who comes by a key alone:\n"
        "# security.sudo.wheelNeedsPassword = false;"
    )


def _by_program(
    host: HostConfig, program: str, people: Collection[str], unlocked: Collection[str]
) -> Iterator[str]:
    asks = host.option(f"security.{program}.wheelNeedsPassword").value is not False
    for user in wheel_of(host):
        if user in (unlocked if asks else people):
            yield f"{user} by {program}"
    rules = host.option(f"security.{program}.extraRules").value or ()
    if any(_asks_nothing(rule) for rule in rules):
        yield f"a rule of {program} asks for no password"


def _asks_nothing(rule: Mapping[str, Json]) -> bool:
    commands = (c for c in rule.get("commands") or () if isinstance(c, dict))
    return rule.get("noPass") is True or any(
        "NOPASSWD" in (c.get("options") or ()) for c in commands
    )
