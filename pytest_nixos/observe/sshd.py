"""The settings that are in force in sshd."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_nixos.observe.fact import Fact

__all__ = ["SSHD_FACTS", "parse_sshd"]

Json = Any

# The running sshd names its configuration; with socket activation no sshd runs, so the unit tells
# instead.
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
    """Read the output of ``sshd -T``: lower-case key to text, or to a list where the key holds
    one.
    """
    settings: dict[str, Json] = {}
    for line in text.split("\n"):
        key, _, value = line.partition(" ")
        key = key.lower()
        if key in _LISTS:
            settings[key] = value.split(",")
        elif key in _REPEATED:
            settings[key] = [*settings.get(key, []), *value.split()]
        elif key and key not in settings:
            settings[key] = value
    return settings


SSHD_FACTS: Mapping[str, Fact] = {
    "settings": Fact(
        script=_SSHD,
        parse=parse_sshd,
        about="every setting in force, as `sshd -T` prints it",
        lacking="the machine has no sshd",
    ),
}
