"""Files: what they are, who owns them, what is in them; and which programs are on PATH."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import msgspec

from pytest_nixos.observe.base import Probe, ProbeOutput

__all__ = ["FileState", "files", "programs"]

_CONTENT_LIMIT = 65536

# A pattern is expanded by the guest's shell; what it does not match stays out. Links are followed.
# One stat(1) tells of all files, and `$(<file)` reads without a program: forks are what costs time
# in a VM. Every field ends in a NUL, which neither a name nor a variable of bash can hold.
_READ = r"""
shopt -s nullglob
declare -A wanted=() seen=()
all=()
for spec in {specs}; do
  want=${{spec%%:*}} pattern=${{spec#*:}}
  case $pattern in *[*?[]*) files=($pattern);; *) files=("$pattern");; esac
  printf 'P%s\0' "$pattern"
  for file in "${{files[@]}}"; do
    [ -e "$file" ] || continue
    printf 'F%s\0' "$file"
    [ "$want" = c ] && wanted[$file]=1
    [ -n "${{seen[$file]-}}" ] || all+=("$file"); seen[$file]=1
  done
done
[ "${{#all[@]}}" -gt 0 ] && stat --dereference --printf='S%n\0%a %U %G %F\0' -- "${{all[@]}}"
for file in "${{!wanted[@]}}"; do
  [ -f "$file" ] || continue
  content=$(<"$file")
  printf 'C%s\0%s\0' "$file" "${{content:0:{limit}}}"
done
printf 'E\0'
"""

_PROGRAMS = r"""
PATH=/run/current-system/sw/bin:/run/wrappers/bin:/nix/var/nix/profiles/default/bin:/usr/local/bin:/usr/bin:/bin
for profile in /etc/profiles/per-user/*/bin /root/.nix-profile/bin /home/*/.nix-profile/bin; do PATH=$PATH:$profile; done
for name in {names}; do type -P -- "$name" >/dev/null && printf '%s\n' "$name"; done
printf 'done\n'
"""


class FileState(msgspec.Struct, frozen=True, kw_only=True):
    """One file.

    :param mode: permission bits in octal.
    :param type: ``directory``, ``regular file``, ... as stat(1) says.
    :param content: first 64 KiB where it was asked for, as UTF-8.
    """

    path: str
    mode: str
    owner: str
    group: str
    type: str
    content: str


def files(
    patterns: Sequence[str], *, contents: Sequence[str] = (), name: str = "file"
) -> Probe[Mapping[str, Sequence[FileState]]]:
    """Ask for the state of files by path or glob.

    :param contents: those of `patterns` whose content is wanted too.
    :return: probe of pattern to the files that it names; a pattern that the guest did not get to is
        left out.
    """
    specs = " ".join(
        shlex.quote(f"{'c' if pattern in contents else 's'}:{pattern}")
        for pattern in dict.fromkeys(patterns)
    )
    script = _READ.format(specs=specs, limit=_CONTENT_LIMIT) if specs else ":"
    return Probe(name=name, script=script, parse=_parse)


def programs(names: Sequence[str], *, name: str = "program") -> Probe[Sequence[str] | None]:
    """Ask which of `names` are programs that root or a user finds on PATH; ``None`` if the
    answer is cut.
    """
    script = _PROGRAMS.format(names=shlex.join(dict.fromkeys(names)))
    return Probe(name=name, script=script, parse=_parse_programs)


def _parse(output: ProbeOutput) -> Mapping[str, Sequence[FileState]]:
    patterns: dict[str, list[str]] = {}
    states: dict[str, str] = {}
    contents: dict[str, str] = {}
    fields = iter(output.text.split("\0"))
    current: list[str] = []
    complete = False
    for head in fields:
        kind, path = head[:1], head[1:]
        match kind:
            case "P":
                current = patterns.setdefault(path, [])
            case "F":
                current.append(path)
            case "S":
                states[path] = next(fields, "")
            case "C":
                contents[path] = next(fields, "")
            case "E":
                complete = True
            case _:
                continue
    if not complete:
        return {}
    return {
        pattern: tuple(
            state
            for path in paths
            if (state := _state(path, states.get(path, ""), contents.get(path, ""))) is not None
        )
        for pattern, paths in patterns.items()
    }


def _state(path: str, facts: str, content: str) -> FileState | None:
    words = facts.split(None, 3)
    if len(words) != 4:
        return None
    mode, owner, group, file_type = words
    return FileState(
        path=path, mode=mode, owner=owner, group=group, type=file_type, content=content
    )


def _parse_programs(output: ProbeOutput) -> Sequence[str] | None:
    found = output.text.split()
    return tuple(found[:-1]) if found and found[-1] == "done" else None
