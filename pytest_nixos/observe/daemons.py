"""Facts about daemons that answer for themselves: sshd, auditd, journald, the Nix daemon."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pytest_nixos.observe.fact import Fact, lines, pairs

__all__ = ["AUDIT_FACTS", "JOURNAL_FACTS", "NIX_FACTS", "SSHD_FACTS", "parse_sshd"]

Json = Any

# The running sshd names its configuration; with socket activation no sshd runs, so the unit tells instead.
_SSHD = r"""
program=$(command -v sshd) || program=$(systemctl show -p ExecStart --value sshd.service 'sshd@.service' |
  grep -o '/nix/store/[^ ;]*/bin/sshd' | head -n 1)
[ -n "$program" ] || program=$(readlink -f "/proc/$(systemctl show -p MainPID --value sshd.service)/exe")
[ -x "$program" ] || exit 3
config=/etc/ssh/sshd_config
[ -e "$config" ] || exit 3
"$program" -T -f "$config" -C user=root,host=localhost,addr=127.0.0.1 || "$program" -G -f "$config"
"""

_LISTS = frozenset(
    {"ciphers", "macs", "kexalgorithms", "hostkeyalgorithms", "pubkeyacceptedalgorithms"}
)
_REPEATED = frozenset(
    {"allowusers", "allowgroups", "denyusers", "denygroups", "hostkey", "listenaddress", "port"}
)


def parse_sshd(text: str) -> dict[str, Json]:
    """Read the output of ``sshd -T``: lower-case key to text, or to a list where the key holds one."""
    settings: dict[str, Json] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        key = key.lower()
        if key in _LISTS:
            settings[key] = value.split(",")
        elif key in _REPEATED:
            settings[key] = [*settings.get(key, []), *value.split()]
        elif key and key not in settings:
            settings[key] = value
    return settings


def _audit_status(text: str) -> dict[str, str]:
    rows = (line.split(None, 1) for line in text.splitlines())
    return {row[0].rstrip(":="): row[1].strip() for row in rows if len(row) == 2}


def _ini(text: str) -> dict[str, str]:
    """Read ``systemd-analyze cat-config``: the last assignment of a key counts."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(("#", ";")))
    return pairs(kept)


def _nix_settings(text: str) -> dict[str, Json] | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return {name: entry.get("value") for name, entry in document.items() if isinstance(entry, dict)}


def _rules(text: str) -> list[str]:
    return [line for line in lines(text) if line != "No rules"]


SSHD_FACTS: Mapping[str, Fact] = {
    "settings": Fact(
        script=_SSHD,
        parse=parse_sshd,
        about="every setting in force, as `sshd -T` prints it",
        lacking="the machine has no sshd",
    ),
}

AUDIT_FACTS: Mapping[str, Fact] = {
    "status": Fact(
        script="command -v auditctl >/dev/null || exit 3; auditctl -s",
        parse=_audit_status,
        about="state of the kernel's audit subsystem (`auditctl -s`)",
        lacking="the machine has no auditctl",
    ),
    "rules": Fact(
        script="command -v auditctl >/dev/null || exit 4; auditctl -l",
        parse=_rules,
        about="loaded audit rules (`auditctl -l`)",
    ),
}

JOURNAL_FACTS: Mapping[str, Fact] = {
    "settings": Fact(
        script="systemd-analyze cat-config systemd/journald.conf",
        parse=_ini,
        about="journald's settings, all files taken together",
    ),
    "errors": Fact(
        script="journalctl --boot --priority=err --no-pager --quiet --output=cat | head -n 200; true",
        parse=lines,
        needs=("journalctl", "head"),
        about="messages of this boot of priority error and worse",
    ),
}

NIX_FACTS: Mapping[str, Fact] = {
    "settings": Fact(
        script=(
            "command -v nix >/dev/null || exit 3; export HOME=/root; "
            "nix --extra-experimental-features nix-command config show --json || "
            "nix --extra-experimental-features nix-command show-config --json"
        ),
        parse=_nix_settings,
        about="every setting in force, as `nix config show` prints it",
        lacking="the machine has no Nix",
    ),
}
