"""What else says something about a kernel parameter: files that set it, and what stands in the
place of one that is missing.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import msgspec

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.kernel import sysctl_path

__all__ = ["SysctlGap", "SysctlLine", "SysctlSources", "sysctl_sources"]

_ROOT = "/proc/sys/"
# sysctl.d(5): of two files of one name the one of the first directory counts; tmpfiles.d(5).
_SOURCES = r"""
shopt -s nullglob
for file in /etc/sysctl.d/*.conf /run/sysctl.d/*.conf /usr/local/lib/sysctl.d/*.conf /usr/lib/sysctl.d/*.conf; do
  printf 'S%s\0%s\0' "$file" "$(head -c 65536 <"$file")"
done
for file in /etc/tmpfiles.d/*.conf /run/tmpfiles.d/*.conf; do
  text=$(grep -s /proc/sys/ "$file") && printf 'T%s\0%s\0' "$file" "$text"
done
for path in {paths}; do
  [ -e "$path" ] && continue
  above=${{path%/*}}
  while [ ! -d "$above" ]; do above=${{above%/*}}; done
  names=("$above"/*)
  printf 'G%s\0%s\0' "$path" "$above"$'\n'"$(printf '%s\n' "${{names[@]##*/}}")"
done
true
"""


class SysctlLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line that sets a parameter.

    :param path: below ``/proc/sys``, with slashes; it may hold wildcards.
    :param by: the file that says it.
    """

    path: str
    value: str
    by: str


class SysctlGap(msgspec.Struct, frozen=True, kw_only=True):
    """Where the way to a parameter that is not there ends.

    :param above: the last directory that is there, below ``/proc/sys``.
    :param missing: the first name below it that is not.
    :param rest: what follows that name, ``""`` for nothing.
    :param names: what is there in its place.
    """

    above: str
    missing: str
    rest: str
    names: tuple[str, ...]


class SysctlSources(msgspec.Struct, frozen=True, kw_only=True):
    """What is said about parameters beside ``boot.kernel.sysctl``.

    :param lines: of sysctl.d, in the order in which systemd-sysctl applies them.
    :param by_name: parameters, as `lines` writes them, that a file names by themselves, be it to
        leave them alone: no glob touches these.
    :param tmpfiles: lines of tmpfiles.d that write below ``/proc/sys``.
    :param gaps: parameters that are not there, as they were asked for.
    """

    lines: tuple[SysctlLine, ...] = ()
    by_name: frozenset[str] = frozenset()
    tmpfiles: tuple[SysctlLine, ...] = ()
    gaps: Mapping[str, SysctlGap] = msgspec.field(default_factory=dict)


def sysctl_sources(keys: Sequence[str], *, name: str = "sysctl-sources") -> Probe[SysctlSources]:
    """Ask for the files that set kernel parameters, and for what is there in place of those of
    `keys` that are not.

    :param keys: as written in ``boot.kernel.sysctl``, without wildcards.
    """
    paths = {sysctl_path(key): key for key in keys}
    script = _SOURCES.format(paths=" ".join(map(shlex.quote, paths)))
    return Probe(name=name, script=script, parse=lambda output: _parse(output, paths))


def _parse(output: ProbeOutput, paths: Mapping[str, str]) -> SysctlSources:
    fields = output.text.split("\0")
    files: dict[str, tuple[str, str]] = {}
    tmpfiles: list[SysctlLine] = []
    gaps: dict[str, SysctlGap] = {}
    for head, text in zip(fields[::2], fields[1::2], strict=False):
        kind, where = head[:1], head[1:]
        if kind == "S":
            files.setdefault(where.rpartition("/")[2], (where, text))
        elif kind == "T":
            tmpfiles += _of_tmpfiles(where, text)
        elif kind == "G" and where in paths:
            gaps[paths[where]] = _gap(where, text)
    lines = [line for _, (where, text) in sorted(files.items()) for line in _of_sysctl(where, text)]
    by_name = frozenset(
        _path(line.strip().partition("=")[0])
        for _, text in files.values()
        for line in text.split("\n")
    )
    return SysctlSources(lines=tuple(lines), by_name=by_name, tmpfiles=tuple(tmpfiles), gaps=gaps)


def _of_sysctl(where: str, text: str) -> list[SysctlLine]:
    found = []
    for line in text.split("\n"):
        key, equals, value = line.strip().partition("=")
        if equals and key[:1] not in ("#", ";"):
            found.append(SysctlLine(path=_path(key), value=value.strip(), by=where))
    return found


def _path(key: str) -> str:
    return sysctl_path(key.strip().removeprefix("-")).removeprefix(_ROOT)


def _of_tmpfiles(where: str, text: str) -> list[SysctlLine]:
    found = []
    for line in text.split("\n"):
        words = line.split(None, 6)
        if len(words) == 7 and words[0][:1] in "wf" and words[1].startswith(_ROOT):
            path = words[1].removeprefix(_ROOT)
            found.append(SysctlLine(path=path, value=words[6].strip("'\""), by=where))
    return found


def _gap(path: str, text: str) -> SysctlGap:
    above, *names = text.split("\n")
    missing, _, rest = path.removeprefix(above).lstrip("/").partition("/")
    return SysctlGap(
        above=above.removeprefix(_ROOT),
        missing=missing,
        rest=rest,
        names=tuple(filter(None, names)),
    )
