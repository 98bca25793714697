"""The kernel of a machine: its command line, its modules, its mounts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_nixos.observe.base import Probe, ProbeOutput

__all__ = ["Mount", "kernel_parameters", "modules", "mounts"]

# `modprobe -n -v` says what it would do: nothing for a built-in module, insmod, or an install rule.
_MODULES = r"""
command -v modprobe >/dev/null || exit 127
for name in {names}; do
  answer=$(modprobe --dry-run --verbose --quiet -- "$name"); status=$?
  printf '%s\037%d\037%s\036' "$name" $status "$answer"
done
printf '\035'; cut -d' ' -f1 /proc/modules
"""

_BLOCKED = re.compile(r"^install \S*(?:/|^)(?:false|true)\b", re.MULTILINE)
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mounted file system.

    :param options: of the mount and of the file system, each once.
    """

    target: str
    source: str
    fs_type: str
    options: tuple[str, ...]


def kernel_parameters(*, name: str = "kernel-param") -> Probe[Sequence[str] | None]:
    """Ask for the kernel command line, split into words; ``None`` if it cannot be read."""
    return Probe(name=name, script="cat /proc/cmdline", parse=_parse_parameters)


def modules(names: Sequence[str], *, name: str = "module") -> Probe[Mapping[str, str] | None]:
    """Ask what would happen if `names` were to be loaded.

    :return: probe of module to ``loaded``, ``built-in``, ``loadable``, ``blocked`` (an install rule stops it) or
        ``absent`` (this kernel has none of that name); ``None`` if the machine has no modprobe.
    """
    script = _MODULES.format(names=shlex.join(dict.fromkeys(names))) if names else ":"
    return Probe(name=name, script=script, parse=_parse_modules)


def mounts(*, name: str = "mount") -> Probe[Mapping[str, Mount]]:
    """Ask for everything that is mounted; of several mounts on one target the last counts."""
    return Probe(name=name, script="cat /proc/self/mountinfo", parse=_parse_mounts)


def _parse_parameters(output: ProbeOutput) -> Sequence[str] | None:
    return None if output.exit_status != 0 else tuple(output.text.split())


def _parse_modules(output: ProbeOutput) -> Mapping[str, str] | None:
    if output.exit_status == 127:
        return None
    answers, _, listing = output.text.partition("\x1d")
    loaded = {line.strip().replace("_", "-") for line in listing.splitlines()}
    states: dict[str, str] = {}
    for record in answers.split("\x1e"):
        fields = record.lstrip("\n").split("\x1f")
        if len(fields) == 3:
            states[fields[0]] = _module_state(fields[0], fields[1], fields[2], loaded)
    return states


def _module_state(name: str, status: str, answer: str, loaded: set[str]) -> str:
    if name.replace("_", "-") in loaded:
        return "loaded"
    if _BLOCKED.search(answer):
        return "blocked"
    if status != "0":
        return "absent"
    return "loadable" if "insmod" in answer else "built-in"


def _parse_mounts(output: ProbeOutput) -> Mapping[str, Mount]:
    found: dict[str, Mount] = {}
    for line in output.text.splitlines():
        left, _, right = line.partition(" - ")
        fields, after = left.split(" "), right.split(" ")
        if len(fields) < 6 or len(after) < 3:
            continue
        target = _unescaped(fields[4])
        options = dict.fromkeys([*fields[5].split(","), *after[2].split(",")])
        # A read-only mount of a writable file system is read-only: what the mount says comes first.
        if "ro" in fields[5].split(","):
            options.pop("rw", None)
        found[target] = Mount(
            target=target,
            source=_unescaped(after[1]),
            fs_type=after[0],
            options=tuple(options),
        )
    return found


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
