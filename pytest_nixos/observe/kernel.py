"""The kernel of a machine: its command line and its modules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.sections import split_sections

__all__ = ["kernel_parameters", "modules"]

# Three reads for any number of modules: a modprobe for each costs half a second of a VM's time in all.
_MODULES = r"""
PATH=$PATH:/run/current-system/sw/bin
command -v modprobe >/dev/null || exit 127
read -r release < /proc/sys/kernel/osrelease
for tree in /run/booted-system/kernel-modules/lib/modules /lib/modules; do
  tree=$tree/$release
  [ -r "$tree/modules.dep" ] && break
done
printf '=rules\n'; modprobe --showconfig | grep '^install '
printf '=built-in\n'; grep -E '/({names})\.ko' "$tree/modules.builtin"
printf '=loadable\n'; cut -d: -f1 "$tree/modules.dep" | grep -E '/({names})\.ko'
printf '=loaded\n'; cut -d' ' -f1 /proc/modules
[ -r "$tree/modules.dep" ] && printf '=complete\n'
true
"""

_BLOCKED = re.compile(r"install\s+(\S+)\s+(?:\S*/)?(?:false|true)\b")
_NAME = re.compile(r"(?:^|/)([^/]+?)(?:\.ko[^/]*)?$")


def kernel_parameters(*, name: str = "kernel-param") -> Probe[Sequence[str] | None]:
    """Ask for the kernel command line, split into words; ``None`` if it cannot be read."""
    return Probe(name=name, script="cat /proc/cmdline", parse=_parse_parameters)


def modules(names: Sequence[str], *, name: str = "module") -> Probe[Mapping[str, str] | None]:
    """Ask what would happen if `names` were to be loaded.

    :return: probe of module to ``loaded``, ``blocked`` (an install rule stops it), ``built-in``, ``loadable`` or
        ``absent`` (this kernel has none of that name); ``None`` if the machine cannot tell.
    """
    wanted = tuple(dict.fromkeys(names))
    # A module's file has dashes or underscores as its author liked.
    patterns = "|".join(re.escape(_plain(n)).replace("_", "[-_]") for n in wanted)
    script = _MODULES.replace("{names}", patterns) if wanted else ":"
    return Probe(name=name, script=script, parse=lambda output: _parse_modules(output, wanted))


def _parse_parameters(output: ProbeOutput) -> Sequence[str] | None:
    return None if output.exit_status != 0 else tuple(output.text.split())


def _parse_modules(output: ProbeOutput, wanted: Sequence[str]) -> Mapping[str, str] | None:
    sections = split_sections(output.text)
    if "complete" not in sections:
        return None
    known = {
        "loaded": {_plain(line) for line in sections.get("loaded", ())},
        "blocked": {
            _plain(m[1]) for line in sections.get("rules", ()) if (m := _BLOCKED.match(line))
        },
        "built-in": {_file_module(line) for line in sections.get("built-in", ())},
        "loadable": {_file_module(line) for line in sections.get("loadable", ())},
    }
    return {
        name: next((state for state, found in known.items() if _plain(name) in found), "absent")
        for name in wanted
    }


def _file_module(line: str) -> str:
    match = _NAME.search(line.strip())
    return _plain(match[1]) if match else ""


def _plain(name: str) -> str:
    return name.strip().replace("-", "_")
