"""Where the values of secrets are seen that everybody, or another unit, can look at."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_nixos import HostConfig, Machine, Secret

if TYPE_CHECKING:
    from pytest_nixos import TestSecrets

__all__ = ["SEARCH", "leaks", "searched"]

# What is shorter is found anywhere.
_FEWEST = 12
_PATTERNS = "/run/pytest-nixos-secrets/.patterns"
_MOST_BYTES = 1 << 20
_LIMIT_S = 120.0
# An /etc that is an overlay (system.etc.overlay) has no /etc/static.
SEARCH = f"""
grep -laF -f {_PATTERNS} /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null
declared=/etc/static
[ -e "$declared" ] || declared=/etc
find -L "$declared" -maxdepth 4 -type f -perm -o=r -size -256k -print0 2>/dev/null | xargs -0r grep -laF -f {_PATTERNS} 2>/dev/null
systemctl show-environment | grep -qaF -f {_PATTERNS} && echo manager
rm -f {_PATTERNS}
true
"""
_SCRIPTS = """systemctl show --property=ExecStartPre,ExecStart,ExecStartPost {unit} |
grep -o '/nix/store/[^ ;]*' | sort -u | xargs -r grep -qsF {patterns} --"""
_PROCESS = re.compile(r"/proc/(\d+)/(cmdline|environ)")


def searched(secrets: TestSecrets) -> Mapping[Secret, tuple[str, ...]]:
    """Return a part of each text of each secret that is searched for; what is too short is left
    out.
    """
    found = {}
    for secret in secrets.secrets:
        parts = {_part(text) for text in secrets.texts_of(secret)}
        if long := tuple(sorted(part for part in parts if len(part) >= _FEWEST)):
            found[secret] = long
    return found


def _part(text: str) -> str:
    """Return the longest line of a text, of a variable its value: what lies in any file of its
    kind is nothing of its own.
    """
    lines = [line for line in text.splitlines() if not line.startswith("-----")]
    return max((line.partition("=")[2].strip() or line for line in lines), key=len, default="")


def leaks(
    machine: Machine, host: HostConfig, wanted: Mapping[Secret, tuple[str, ...]]
) -> Sequence[tuple[Secret, str]]:
    """Return each secret with where it is seen."""
    lines = "".join(f"{part}\n" for parts in wanted.values() for part in parts)
    machine.files.write(_PATTERNS, lines.encode(errors="surrogateescape"), mode=0o400)
    places = machine.run(SEARCH, timeout_s=_LIMIT_S).stdout_text.splitlines()
    found: list[tuple[Secret, str]] = []
    for place in places:
        process = _PROCESS.fullmatch(place)
        text = _read(machine, place)
        unit = _unit(machine, process[1]) if process else ""
        for secret, parts in wanted.items():
            if not any(part in text for part in parts):
                continue
            if process and process[2] == "environ":
                # What runs in a scope (a container, a session) got it from whoever started it.
                if unit.endswith(".service") and not _uses(machine, host, unit, secret):
                    found.append((secret, f"environment of a process of {unit}"))
            elif process:
                found.append((secret, f"command line of a process of {unit or 'no unit'}"))
            else:
                found.append((secret, "environment of systemd" if place == "manager" else place))
    return list(dict.fromkeys(found))


def _uses(machine: Machine, host: HostConfig, unit: str, secret: Secret) -> bool:
    """Whether a unit names a secret, or what is rendered of secrets, itself or in a script that it
    starts.
    """
    rendered = [t.path for t in host.secrets.templates if t.module is secret.module]
    paths = [secret.path, *rendered]
    if any(unit in host.units_naming(path) for path in paths):
        return True
    patterns = " ".join(f"-e {shlex.quote(path)}" for path in paths)
    return machine.run(_SCRIPTS.format(unit=shlex.quote(unit), patterns=patterns)).succeeded


def _read(machine: Machine, place: str) -> str:
    command = (
        "systemctl show-environment"
        if place == "manager"
        else f"head -c {_MOST_BYTES} {shlex.quote(place)} 2>/dev/null"
    )
    return machine.run(command).stdout.decode(errors="surrogateescape")


def _unit(machine: Machine, pid: str) -> str:
    text = machine.run(f"cat /proc/{pid}/cgroup 2>/dev/null").stdout_text
    return text.strip().splitlines()[-1].rsplit("/", 1)[-1] if text.strip() else ""
