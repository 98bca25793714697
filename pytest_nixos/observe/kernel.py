"""The kernel: its command line, modules and parameters (``/proc/sys``), and the processor that
it runs on.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.fact import Fact
from pytest_nixos.observe.text import lines

__all__ = [
    "PROCESSOR_FACTS",
    "applied_sysctls",
    "kernel_parameters",
    "modules",
    "normalise_sysctl",
    "same_sysctl",
    "sysctl_path",
    "sysctl_tree",
    "sysctls",
]

# Three reads for any number of modules: a modprobe for each costs half a second of a VM's time in
# all.
_MODULES = r"""
PATH=$PATH:/run/current-system/sw/bin
command -v modprobe >/dev/null || exit 127
read -r release < /proc/sys/kernel/osrelease
for tree in /run/booted-system/kernel-modules/lib/modules /lib/modules; do
  tree=$tree/$release
  [ -r "$tree/modules.dep" ] && break
done
title rules; modprobe --showconfig | grep '^install '
title built-in; grep -E '/({names})\.ko' "$tree/modules.builtin"
title loadable; grep -E '^[^:]*/({names})\.ko' "$tree/modules.dep"
title loaded; while read -r module _; do printf '%s\n' "$module"; done </proc/modules
[ -r "$tree/modules.dep" ] && title complete
true
"""

_ROOT = "/proc/sys/"

# Two fields a key: "V<key>" and its value, or "M<key>" and nothing if there is none. Each ends in a
# NUL, which no variable of bash can hold. mapfile reads without a new process and tells of no failure, so
# an empty value is asked for by `$(<file)`, which does; a value is at most a few kilobytes.
_SYSCTLS = r"""
pn_value() {{
  local -a lines=()
  mapfile -t lines <"$1"
  if ((${{#lines[@]}} == 1)) && [[ -n ${{lines[0]}} ]]; then value=${{lines[0]}}; else value=$(<"$1"); fi
}}
for spec in {specs}; do
  key=${{spec%%=*}} path=${{spec#*=}}
  if [ ! -e "$path" ]; then printf 'M%s\0\0' "$key"
  elif pn_value "$path"; then printf 'V%s\0%s\0' "$key" "$value"
  else printf 'U%s\0\0' "$key"; fi
done
"""

# What a glob stands for on this machine, as systemd-sysctl expands it: no wildcard crosses a slash.
_GLOBS = r"""
IFS=
for glob in {globs}; do
  for path in $glob; do
    [ -e "$path" ] && pn_value "$path" && printf 'G%s\0%s\0' "${{path#/proc/sys/}}" "$value"
  done
done
true
"""

# find and grep are two programs for a whole tree; write-only keys are skipped by grep -s.
_TREE = r"find {path} -type f -perm /444 -print0 | xargs -0r grep -HsZ ''; true"

_BLOCKED = re.compile(r"install\s+(\S+)\s+(?:\S*/)?(?:false|true)\b")
_WILDCARD = re.compile(r"[*?\[]")
_NAME = re.compile(r"(?:^|/)([^/]+?)(?:\.ko[^/]*)?$")


def kernel_parameters(*, name: str = "kernel-param") -> Probe[Sequence[str] | None]:
    """Ask for the kernel command line, split into words; ``None`` if it cannot be read."""
    return Probe(
        name=name,
        script="text=$(</proc/cmdline) && printf '%s\\n' \"$text\"",
        parse=_parse_parameters,
    )


def modules(names: Sequence[str], *, name: str = "module") -> Probe[Mapping[str, str] | None]:
    """Ask what would happen if `names` were to be loaded.

    :return: probe of module to ``loaded``, ``blocked`` (an install rule stops it), ``built-in``,
        ``loadable`` or ``absent`` (this kernel has none of that name); ``None`` if the machine
        cannot tell.
    """
    wanted = tuple(dict.fromkeys(names))
    # A module's file has dashes or underscores as its author liked.
    patterns = "|".join(re.escape(_plain(n)).replace("_", "[-_]") for n in wanted)
    script = _MODULES.replace("{names}", patterns) if wanted else ":"
    return Probe(name=name, script=script, parse=lambda output: _parse_modules(output, wanted))


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
    """Make two spellings of a value comparable: the kernel separates numbers by tabs, people by
    spaces.
    """
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

    :param keys: one with a wildcard (``net.ipv4.conf.*.rp_filter``) asks for all keys that it
        stands for, as sysctl.d(5) understands it.
    :return: probe of key to value without its last newline; ``None`` if the kernel has no such key
        or it cannot be read. A key that the guest did not answer for is absent.
    """
    globs = [key for key in keys if _WILDCARD.search(key)]
    plain = [key for key in keys if key not in globs]
    specs = " ".join(shlex.quote(f"{key}={sysctl_path(key)}") for key in plain)
    script = _SYSCTLS.format(specs=specs)
    if globs:
        script += _GLOBS.format(globs=" ".join(shlex.quote(sysctl_path(key)) for key in globs))
    return Probe(name=name, script=script, parse=_parse_keys)


def applied_sysctls(declared: Mapping[str, str], keys: Iterable[str]) -> Mapping[str, str]:
    """Return what is declared for each of `keys` by itself or by a glob, as systemd-sysctl applies
    it: a key that is written out is no business of a glob, and neither is one that a leading dash
    takes out.

    :param declared: as written in ``boot.kernel.sysctl``.
    :param keys: keys of the machine; a declared key without wildcard counts without being there.
    """
    plain = {_path(key): key for key in declared if not _WILDCARD.search(key)}
    found = {key: declared[key] for key in plain.values() if not key.startswith("-")}
    excluded = {path.removeprefix("-") for path in plain}
    for glob in (key for key in declared if _WILDCARD.search(key)):
        wanted = re.compile("".join(_pattern(char) for char in _path(glob.removeprefix("-"))))
        for key in keys:
            path = _path(key)
            if wanted.fullmatch(path) and path not in excluded:
                found[key] = declared[glob]
    return found


def _path(key: str) -> str:
    dash = "-" if key.startswith("-") else ""
    return dash + sysctl_path(key.removeprefix("-")).removeprefix(_ROOT)


def _pattern(char: str) -> str:
    return {"*": "[^/]*", "?": "[^/]"}.get(char, char if char in "[]" else re.escape(char))


def sysctl_tree(prefix: str = "", *, name: str = "sysctl-tree") -> Probe[Mapping[str, str]]:
    """Ask for every readable key below `prefix` (``net.ipv4``; ``""`` for all, about 1,500
    keys).
    """
    path = shlex.quote(sysctl_path(prefix) if prefix else _ROOT)
    return Probe(name=name, script=_TREE.format(path=path), parse=_parse_tree)


def _parse_parameters(output: ProbeOutput) -> Sequence[str] | None:
    return None if output.exit_status != 0 else tuple(output.text.split())


def _parse_modules(output: ProbeOutput, wanted: Sequence[str]) -> Mapping[str, str] | None:
    sections = output.sections
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
    # In modules.dep what it needs follows a colon.
    match = _NAME.search(line.partition(":")[0].strip())
    return _plain(match[1]) if match else ""


def _plain(name: str) -> str:
    return name.strip().replace("-", "_")


def _parse_keys(output: ProbeOutput) -> Mapping[str, str | None]:
    fields = output.text.split("\0")
    found = zip(fields[::2], fields[1::2], strict=False)
    return {
        _spelt(head[1:]) if head[0] == "G" else head[1:]: value if head[0] in "GV" else None
        for head, value in found
        if head
    }


def _parse_tree(output: ProbeOutput) -> Mapping[str, str]:
    values: dict[str, str] = {}
    for line in output.text.split("\n"):
        path, colon, value = line.partition("\0")
        if not colon or not path.startswith(_ROOT):
            continue
        key = _spelt(path.removeprefix(_ROOT))
        values[key] = f"{values[key]}\n{value}" if key in values else value
    return values


def _spelt(key: str) -> str:
    """Write a key with dots; a dot inside a component can only be written with slashes as
    separators.
    """
    return key if "." in key else key.replace("/", ".")


_FLAGS = r"""
while IFS=: read -r key value _; do
  case $key in flags*|Features*) printf '%s\n' "$value"; break;; esac
done </proc/cpuinfo"""

PROCESSOR_FACTS: Mapping[str, Fact] = {
    "flags": Fact(
        script=_FLAGS,
        parse=str.split,
        about="processor flags",
    ),
    "vulnerable": Fact(
        script="cd /sys/devices/system/cpu/vulnerabilities || exit 3; grep -H Vulnerable *; true",
        parse=lines,
        about="processor weaknesses that the kernel does not mitigate",
        lacking="the kernel does not tell of processor weaknesses",
    ),
}
