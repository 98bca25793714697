"""Harmless changes of a host that a switch handles in different ways, and how to see them.

All are told apart from a base generation that holds the same things in another state: what a
generation alone declared would prove less when it is gone.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

__all__ = [
    "BEGUN",
    "CHANGES",
    "DATA",
    "EVERYTHING",
    "FAILING_ACTIVATION",
    "FAILING_UNIT",
    "LOOK",
    "NAME",
    "PANIC",
    "SLOW",
    "SYNTAX_ERROR",
    "Change",
    "Prebuilt",
    "base_module",
    "look_at",
    "module",
    "not_as_before",
    "prebuilt",
]

NAME = "pytest-nixos-life"
DATA = f"/var/lib/{NAME}"
_PORT = 47113
# Belongs to a network namespace, so that a container has its own.
_SYSCTL = "net.ipv4.tcp_keepalive_time"
_FIREWALL = f"{{ nft list ruleset; iptables-save; }} 2>/dev/null | grep -c -w {_PORT}"

# What goes wrong on purpose, as text of a module's body.
FAILING_UNIT = f"""
  systemd.services."{NAME}-failing" = {{
    wantedBy = [ "multi-user.target" ];
    serviceConfig = {{ Type = "oneshot"; ExecStart = "${{pkgs.coreutils}}/bin/false"; }};
  }};
"""
FAILING_ACTIVATION = f"""
  system.activationScripts."{NAME}".text = "echo '{NAME}: on purpose'; false";
"""
# An unbalanced quote: systemd ignores the line, and a service without a command does not load.
SYNTAX_ERROR = f"""
  systemd.services."{NAME}-kept".serviceConfig.ExecStart = lib.mkForce "'unbalanced";
"""
# Process 1 ends before it becomes systemd: the kernel panics, a container ends.
PANIC = """
  boot.postBootCommands = "echo 'pytest-nixos: process 1 ends on purpose'; exit 1";
"""
BEGUN = f"/run/{NAME}-begun"
# Not while it boots: there is no booted system before the activation then.
SLOW = f"""
  system.activationScripts."{NAME}".text = ''
    if [ -e /run/booted-system ]; then touch {BEGUN}; ${{pkgs.coreutils}}/bin/sleep 600; fi
  '';
"""

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


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change of the base generation.

    :param values: parameters of :func:`module` that differ from the base.
    :param shows: what :data:`LOOK` then shows otherwise.
    :param needs_firewall: whether only a host with its firewall on can show it.
    """

    name: str
    values: Mapping[str, str] = msgspec.field(default_factory=dict)
    shows: Mapping[str, str] = msgspec.field(default_factory=dict)
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


class Prebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """A generation of this suite, for who builds all of them before the run (``lib.checkHost``).

    :param only: ``container`` where no VM needs it; ``firewall`` or ``no-firewall`` where the host's
        firewall decides.
    """

    module: str
    only: str = ""


def prebuilt() -> tuple[Prebuilt, ...]:
    """Return every generation that the tests of this suite build."""
    without = everything(tuple(change for change in CHANGES if not change.needs_firewall))
    always = [
        *(module(values) for values in ({}, {"etc": "new"}, {"kept": "new"})),
        module({"etc": "new", "kept": "new"}),
        *(
            module({}, more)
            for more in (FAILING_UNIT, FAILING_ACTIVATION, SYNTAX_ERROR, PANIC, SLOW)
        ),
    ]
    single = [module(change.values) for change in CHANGES]
    return (
        *(Prebuilt(module=text) for text in always),
        Prebuilt(module=module(EVERYTHING.values), only="firewall"),
        Prebuilt(module=module(without.values), only="no-firewall"),
        *(Prebuilt(module=text, only="container") for text in single if text not in always),
    )
