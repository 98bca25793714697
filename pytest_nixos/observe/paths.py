"""Files of a machine: what they are, who owns them, what is in them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_nixos.observe.base import Probe, ProbeOutput

__all__ = ["PathState", "path_states"]

_CONTENT_LIMIT = 65536

# A pattern is expanded by the guest's shell; what it does not match stays out. Links are followed.
_READ = r"""
shopt -s nullglob
for spec in {specs}; do
  want=${{spec%%:*}} pattern=${{spec#*:}}
  case $pattern in *[*?[]*) files=($pattern);; *) files=("$pattern");; esac
  for file in "${{files[@]}}"; do
    [ -e "$file" ] || continue
    printf 'F%s\037%s\037' "$file" "$(stat --dereference --format='%a %U %G %F' -- "$file")"
    if [ "$want" = c ] && [ -f "$file" ]; then head -c {limit} -- "$file"; fi
    printf '\036'
  done
  printf 'P%s\036' "$pattern"
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathState:
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


def path_states(
    patterns: Sequence[str], *, contents: Sequence[str] = (), name: str = "file"
) -> Probe[Mapping[str, Sequence[PathState]]]:
    """Ask for the state of files by path or glob.

    :param contents: those of `patterns` whose content is wanted too.
    :return: probe of pattern to the files that it names; a pattern that the guest did not get to is left out.
    """
    specs = " ".join(
        shlex.quote(f"{'c' if pattern in contents else 's'}:{pattern}")
        for pattern in dict.fromkeys(patterns)
    )
    script = _READ.format(specs=specs, limit=_CONTENT_LIMIT) if specs else ":"
    return Probe(name=name, script=script, parse=_parse)


def _parse(output: ProbeOutput) -> Mapping[str, Sequence[PathState]]:
    found: dict[str, Sequence[PathState]] = {}
    pending: list[PathState] = []
    for record in output.text.split("\x1e"):
        kind, rest = record[:1], record[1:]
        if kind == "P":
            found[rest] = tuple(pending)
            pending = []
        elif kind == "F" and (state := _state(rest)) is not None:
            pending.append(state)
    return found


def _state(record: str) -> PathState | None:
    path, _, rest = record.partition("\x1f")
    facts, _, content = rest.partition("\x1f")
    words = facts.split(None, 3)
    if len(words) != 4:
        return None
    mode, owner, group, file_type = words
    return PathState(
        path=path, mode=mode, owner=owner, group=group, type=file_type, content=content
    )
