"""Kernel parameters, read from ``/proc/sys``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from pytest_nixos.observe.base import Probe, ProbeOutput

__all__ = ["normalise_sysctl", "same_sysctl", "sysctl_path", "sysctl_tree", "sysctls"]

_ROOT = "/proc/sys/"

# One record a key: "V<key>" and the value's lines, or "M<key>" if there is none, each closed by a NUL-free
# marker line. `$(<file)` reads without a new program; a value is at most a few kilobytes.
_READ = r"""
for spec in {specs}; do
  key=${{spec%%=*}} path=${{spec#*=}}
  if [ ! -e "$path" ]; then printf 'M%s\n\036\n' "$key"
  elif value=$(<"$path"); then printf 'V%s\n%s\n\036\n' "$key" "$value"
  else printf 'U%s\n\036\n' "$key"; fi
done
"""

# find and grep are two programs for a whole tree; write-only keys are skipped by grep -s.
_TREE = r"find {path} -type f -perm /444 -print0 | xargs -0r grep -Hs ''; true"


def sysctl_path(key: str) -> str:
    """Return the file of one kernel parameter, as sysctl(8) finds it.

    Where a slash comes before any dot, slashes separate and dots stand for themselves
    (``net/ipv4/conf/eth0.100/rp_filter``); otherwise dots separate and a slash stands for a dot.
    """
    first = next((c for c in key if c in "./"), ".")
    if first == ".":
        key = key.translate(str.maketrans("./", "/."))
    return _ROOT + key


def normalise_sysctl(value: str) -> str:
    """Make two spellings of a value comparable: the kernel separates numbers by tabs, people by spaces."""
    return " ".join(value.split())


def same_sysctl(declared: str, observed: str | None) -> bool:
    """Whether a declared value is in force.

    The kernel takes fewer numbers than a parameter holds and leaves the others as they are:
    ``kernel.printk = 4`` reads back as ``4 4 1 7``.
    """
    wanted = declared.split()
    return observed is not None and wanted == observed.split()[: max(len(wanted), 1)]


def sysctls(keys: Sequence[str], *, name: str = "sysctl") -> Probe[Mapping[str, str | None]]:
    """Ask for the values of `keys`, as written in ``boot.kernel.sysctl``.

    :return: probe of key to value without its last newline; ``None`` if the kernel has no such key or it
        cannot be read. A key that the guest did not answer for is absent.
    """
    specs = " ".join(shlex.quote(f"{key}={sysctl_path(key)}") for key in keys)
    return Probe(name=name, script=_READ.format(specs=specs), parse=_parse_keys)


def sysctl_tree(prefix: str = "", *, name: str = "sysctl-tree") -> Probe[Mapping[str, str]]:
    """Ask for every readable key below `prefix` (``net.ipv4``; ``""`` for all, about 1,500 keys)."""
    path = shlex.quote(sysctl_path(prefix) if prefix else _ROOT)
    return Probe(name=name, script=_TREE.format(path=path), parse=_parse_tree)


def _parse_keys(output: ProbeOutput) -> Mapping[str, str | None]:
    values: dict[str, str | None] = {}
    for record in output.text.split("\n\036\n"):
        head, _, value = record.lstrip("\n").partition("\n")
        if head[:1] == "V":
            values[head[1:]] = value
        elif head[:1] in ("M", "U"):
            values[head[1:]] = None
    return values


def _parse_tree(output: ProbeOutput) -> Mapping[str, str]:
    values: dict[str, str] = {}
    for line in output.text.splitlines():
        path, colon, value = line.partition(":")
        if not colon or not path.startswith(_ROOT):
            continue
        key = path.removeprefix(_ROOT)
        # A dot inside a component can only be written with slashes as separators.
        key = key if "." in key else key.replace("/", ".")
        values[key] = f"{values[key]}\n{value}" if key in values else value
    return values
