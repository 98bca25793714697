"""One command that shows by hand what a control looks at, to be pasted on the host as root."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_nixos.nix.command.refs import FileRef
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.standards.control.model import Control, DeclaredSpec
from pytest_nixos.standards.control.placeholders import filled
from pytest_nixos.standards.control.seen import Seen
from pytest_nixos.standards.control.services import application_services
from pytest_nixos.subject import Subject, SubjectKind

__all__ = ["by_hand"]

Json = Any
Parameters = Mapping[str, Json]

_FACTS = {
    "account": "getent passwd; getent group; passwd -S -a",
    "clock": "timedatectl show; timedatectl show-timesync",
    "generation": "ls -l /run/booted-system /run/current-system /nix/var/nix/profiles",
    "journal": "systemd-analyze cat-config systemd/journald.conf; journalctl -b -p err",
    "nix": "nix --extra-experimental-features nix-command show-config",
    "podman": "podman ps --all --format json",
    "processor": "grep -m1 ^flags /proc/cpuinfo",
    "storage": "lsblk -f; swapon --show; df -h",
    "firewall": "nft list ruleset; iptables-save; ip6tables-save",
    "address": "ip -br address",
    "mount-declared": "findmnt --verify; findmnt",
    "sshd-declared": "sshd -T",
}
_WALK = "find / -xdev -path /nix -prune -o"
_SCANS = {
    "dead-etc-links": "find /etc -xtype l; readlink -f /etc/static",
    "enforced-profiles": "grep -F '(enforce)' /sys/kernel/security/apparmor/profiles",
    "foreign-software": "find /usr/local /opt -mindepth 1 -maxdepth 2 ! -type d -ls",
    "history-secrets": "ls -l /root/.*_history /home/*/.*_history",
    "loose-etc-nixos": "find /etc/nixos ! -type l \\( ! -user root -o ! -group root -o -perm /022 \\) -ls",
    "setuid-outside-wrappers": f"{_WALK} -type f -perm /6000 -ls",
    "setuid-wrappers": "ls -l /run/wrappers/bin/",
    "unowned": f"{_WALK} \\( -nouser -o -nogroup \\) -ls",
    "world-writable-directories": f"{_WALK} -type d -perm -0002 ! -perm -1000 -ls",
    "world-writable-files": f"{_WALK} -type f -perm -0002 -ls",
}
_FLAKE = {
    "tracked": "git ls-files --error-unmatch flake.lock",
}
_SUITES = {
    "boot": "systemctl --failed; systemd-analyze",
    "firewall": "nft list ruleset; iptables-save; ss -tulpn",
    "rollback": "ls -l /run/booted-system /run/current-system /nix/var/nix/profiles",
    "life": "ls -l /run/booted-system /run/current-system /nix/var/nix/profiles",
    "sandboxing": "systemd-analyze security",
    "zram": "zramctl; swapon --show",
    "ollama": "systemctl status ollama.service; ss -tlpn",
    "units": "systemctl --failed; systemd-analyze verify default.target",
    "nats-monitoring": "systemctl status nats.service; ss -tlpn",
    "tls": "ss -tlpn",
}
_SAFE_NAME = re.compile(r"[\w@.:*\\-]+")
_MOST_UNITS = 6


def by_hand(control: Control, host: HostConfig, blames: Sequence[Subject] = ()) -> str:
    """Return a command that only reads, ``""`` where none says it.

    Names of units that a guest told are quoted; nothing else of a guest gets into it.

    :param blames: what the finding found broken: a unit's own status tells more than a list.
    """
    units = [s.name for s in blames if s.kind is SubjectKind.UNIT and _SAFE_NAME.fullmatch(s.name)]
    if units and not control.is_data:
        return f"systemctl status --no-pager {_words(units[:_MOST_UNITS])}"
    spec = control.observed
    if spec is not None:
        make = _BY_KIND.get(spec.kind)
        if make is not None:
            return make(spec.parameters, host)
        return _FACTS.get(spec.kind, "")
    if control.declared is not None:
        return _option(control.declared, host)
    return _SUITES.get(control.suite, "")


def _words(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


def _option(spec: DeclaredSpec, host: HostConfig) -> str:
    """Return how the evaluated config is asked on the machine that holds the flake."""
    if not spec.options:
        return ""
    attribute = f"{host.ref.config}.{spec.options[0]}"
    if isinstance(host.ref.flake, FileRef):
        words = host.ref.flake.by_hand(host.name, f"config.{spec.options[0]}")
        return _words(["nix-instantiate", "--eval", "--strict", "--json", *words])
    flake = host.ref.flake.url.removeprefix("path:")
    return f"nix eval --json {shlex.quote(f'{flake}#{attribute}')}"


def _units(parameters: Parameters, host: HostConfig) -> list[str]:
    if "services" in parameters:
        return list(application_services(host))[:_MOST_UNITS]
    given = [*parameters.get("units", ()), *([parameters["unit"]] if "unit" in parameters else [])]
    return [str(name) for name in given][:_MOST_UNITS]


def _unit_property(parameters: Parameters, host: HostConfig) -> str:
    properties = [*parameters.get("properties", ()), parameters.get("property", "")]
    asked = ",".join(str(name) for name in properties if name) or "ActiveState"
    return f"systemctl show -p Id,{asked} {_words(_units(parameters, host))}"


def _process(parameters: Parameters, host: HostConfig) -> str:
    (unit, *_) = _units(parameters, host) or ["init.scope"]
    what = {"environment": "environ", "command-line": "cmdline"}.get(
        str(parameters["field"]), "oom_score_adj"
    )
    pid = f"$(systemctl show -P MainPID {shlex.quote(unit)})"
    return f"tr '\\0' '\\n' < /proc/{pid}/{what}"


def _file(parameters: Parameters, _: HostConfig) -> str:
    paths = [*parameters.get("paths", ()), *([parameters["path"]] if "path" in parameters else [])]
    # Globs are to be expanded by the shell that it is pasted into.
    words = " ".join(p if re.fullmatch(r"[\w./*+-]+", p) else shlex.quote(p) for p in paths)
    if parameters["field"] in ("match", "settings", "content", "text"):
        return f"cat {words}"
    return f"stat -L -c '%A %U:%G %n' {words}"


def _http(parameters: Parameters, host: HostConfig) -> str:
    url = filled(str(parameters["url"]), host)
    return f"curl -sS -i {shlex.quote(str(url.value))}" if isinstance(url, Seen) else ""


def _socket(parameters: Parameters, host: HostConfig) -> str:
    port = filled(str(parameters["port"]), host)
    if not isinstance(port, Seen):
        return ""
    return f"ss -tlpn {shlex.quote(f'sport = :{port.value}')}"


def _keys(parameters: Parameters) -> list[str]:
    return [*parameters.get("keys", ()), *([parameters["key"]] if "key" in parameters else [])]


def _sshd(parameters: Parameters, _: HostConfig) -> str:
    key = str(parameters["key"]).lower()
    return f"sshd -T | grep -i {shlex.quote(f'^{key} ')}"


def _audit(parameters: Parameters, _: HostConfig) -> str:
    return "auditctl -s" if "status" in parameters else "auditctl -l"


_BY_KIND: Mapping[str, Callable[[Parameters, HostConfig], str]] = {
    "audit": _audit,
    "file": _file,
    "flake-lock": lambda p, _: _FLAKE.get(str(p["fact"]), "nix flake metadata"),
    "http": _http,
    "kernel-param": lambda _, __: "cat /proc/cmdline",
    "module": lambda p, _: f"modprobe -n -v {_words(p['names'][:1])}; lsmod",
    "mount": lambda p, _: f"findmnt {shlex.quote(str(p['target']))}",
    "process": _process,
    "program": lambda p, _: f"type -a {_words(p['names'])}",
    "scan": lambda p, _: _SCANS.get(str(p["fact"]), ""),
    "socket": _socket,
    "sshd": _sshd,
    "sysctl": lambda p, _: f"sysctl {_words(_keys(p))}",
    "unit-exposure": lambda p, h: f"systemd-analyze security {_words(_units(p, h))}",
    "unit-property": _unit_property,
}
