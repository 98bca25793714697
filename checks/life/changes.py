"""Harmless changes of a host that a switch handles in different ways, and how to see them.

All are told apart from a base generation that holds the same things in another state: what a
generation alone declared would prove less when it is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "CHANGES",
    "DATA",
    "EVERYTHING",
    "LOOK",
    "Change",
    "base_module",
    "look_at",
    "module",
    "not_as_before",
]

NAME = "pytest-nixos-life"
DATA = f"/var/lib/{NAME}"
_PORT = 47113
# Belongs to a network namespace, so that a container has its own.
_SYSCTL = "net.ipv4.tcp_keepalive_time"
_FIREWALL = f"{{ nft list ruleset; iptables-save; }} 2>/dev/null | grep -c -w {_PORT}"

LOOK = f"""
printf 'etc=%s\\n' "$(cat /etc/{NAME} 2>/dev/null)"
printf 'kept=%s\\n' "$(systemctl show --property=Environment --value {NAME}-kept.service | tr ' ' '\\n' | grep '^STATE=')"
printf 'kept-state=%s\\n' "$(systemctl is-active {NAME}-kept.service)"
printf 'reloaded=%s\\n' "$(cat /run/{NAME}-reloaded 2>/dev/null)"
printf 'removed=%s\\n' "$(systemctl is-active {NAME}-removed.service)"
printf 'added=%s\\n' "$(systemctl is-active {NAME}-added.service)"
printf 'sysctl=%s\\n' "$(cat /proc/sys/{_SYSCTL.replace(".", "/")})"
printf 'firewall=%s\\n' "$({_FIREWALL})"
printf 'user=%s\\n' "$(getent passwd {NAME} | cut -d: -f1)"
printf 'data=%s\\n' "$(cat {DATA} 2>/dev/null)"
printf 'failed=%s\\n' "$(systemctl list-units --state=failed --plain --no-legend --no-pager | cut -d' ' -f1 | sort | tr '\\n' ' ')"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of the base generation.

    :param values: parameters of :func:`module` that differ from the base.
    :param shows: what :data:`LOOK` then shows otherwise.
    :param needs_firewall: whether only a host with its firewall on can show it.
    """

    name: str
    values: Mapping[str, str] = field(default_factory=dict)
    shows: Mapping[str, str] = field(default_factory=dict)
    needs_firewall: bool = False


CHANGES = (
    Change(name="a file in /etc", values={"etc": "new"}, shows={"etc": "new"}),
    Change(name="a unit's text", values={"kept": "new"}, shows={"kept": "STATE=new"}),
    Change(name="a unit that reloads", values={"reloads": "new"}, shows={"reloaded": "new"}),
    Change(name="a unit less", values={"removed": "no"}, shows={"removed": "inactive"}),
    Change(name="a unit more", values={"added": "yes"}, shows={"added": "active"}),
    Change(name="a sysctl", values={"sysctl": "7100"}, shows={"sysctl": "7100"}),
    Change(name="a user", values={"user": "yes"}, shows={"user": NAME}),
    Change(
        name="a firewall port", values={"port": "yes"}, shows={"firewall": "1"}, needs_firewall=True
    ),
)


def everything(changes: tuple[Change, ...]) -> Change:
    """Put all changes into one generation."""
    return Change(
        name="everything at once",
        values={key: value for change in changes for key, value in change.values.items()},
        shows={key: value for change in changes for key, value in change.shows.items()},
    )


EVERYTHING = everything(CHANGES)


def look_at(text: str) -> dict[str, str]:
    """Read what :data:`LOOK` prints; how often a rule of the firewall stands is of no concern."""
    seen = {k: v.strip() for k, _, v in (line.partition("=") for line in text.splitlines())}
    if seen.get("firewall", "0") not in ("", "0"):
        seen["firewall"] = "1"
    return seen


def not_as_before(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """Return what differs; of the failed units only those that had not failed before."""
    wrong = {key: after.get(key, "") for key, value in before.items() if after.get(key) != value}
    if "failed" in wrong:
        new = set(wrong.pop("failed").split()) - set(before["failed"].split())
        wrong |= {"failed": " ".join(sorted(new))} if new else {}
    return wrong


def base_module() -> str:
    """Return the module of the base generation."""
    return module({})


def module(values: Mapping[str, str], more: str = "") -> str:
    """Return a module: the base with `values` in place of its own, and `more` Nix text in its
    body.
    """
    chosen = {
        "etc": "old",
        "kept": "old",
        "reloads": "old",
        "removed": "yes",
        "added": "no",
        "sysctl": "7200",
        "user": "no",
        "port": "no",
    } | dict(values)
    return f"""
{{ pkgs, lib, ... }}: {{
  environment.etc."{NAME}".text = "{chosen["etc"]}";
  boot.kernel.sysctl."{_SYSCTL}" = lib.mkForce {chosen["sysctl"]};
  networking.firewall.allowedTCPPorts = lib.mkIf ("{chosen["port"]}" == "yes") [ {_PORT} ];
  users.users."{NAME}" = lib.mkIf ("{chosen["user"]}" == "yes") {{ isSystemUser = true; group = "nogroup"; }};
  systemd.services."{NAME}-kept" = {{
    wantedBy = [ "multi-user.target" ];
    environment.STATE = "{chosen["kept"]}";
    serviceConfig.ExecStart = lib.mkDefault "${{pkgs.coreutils}}/bin/sleep infinity";
  }};
  systemd.services."{NAME}-reloads" = {{
    wantedBy = [ "multi-user.target" ];
    reloadIfChanged = true;
    serviceConfig = {{
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${{pkgs.bash}}/bin/bash -c 'echo {chosen["reloads"]} > /run/{NAME}-reloaded'";
      ExecReload = "${{pkgs.bash}}/bin/bash -c 'echo {chosen["reloads"]} > /run/{NAME}-reloaded'";
    }};
  }};
  systemd.services."{NAME}-removed" = lib.mkIf ("{chosen["removed"]}" == "yes") {{
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${{pkgs.coreutils}}/bin/sleep infinity";
  }};
  systemd.services."{NAME}-added" = lib.mkIf ("{chosen["added"]}" == "yes") {{
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${{pkgs.coreutils}}/bin/sleep infinity";
  }};
  imports = [
    ({{ pkgs, lib, ... }}: {{
      {more}
    }})
  ];
}}
"""
