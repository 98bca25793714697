"""The kernel of a machine: its command line and its modules."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from pytest_nixos.observe.base import Probe, ProbeOutput

__all__ = ["kernel_parameters", "modules"]

# `modprobe -n -v` says what it would do: nothing for a built-in module, insmod, or an install rule.
_MODULES = r"""
command -v modprobe >/dev/null || exit 127
for name in {names}; do
  answer=$(modprobe --dry-run --verbose -- "$name"); status=$?
  printf '%s\037%d\037%s\036' "$name" $status "$answer"
done
printf '\035'; cut -d' ' -f1 /proc/modules
"""

_BLOCKED = re.compile(r"^install \S*(?:/|^)(?:false|true)\b", re.MULTILINE)


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
