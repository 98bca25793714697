"""Paths that units and their configuration name, and that nothing has: of another one a slip of the pen, or
in a package that has no such file.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePath

import msgspec

from pytest_nixos import HostConfig, Unit, observe

__all__ = [
    "LOOK",
    "Named",
    "Neighbours",
    "absent_in_store",
    "elsewhere",
    "meant_by",
    "named_by",
    "packages_have",
    "read_neighbours",
    "remedy_of",
]

#: Of a path that is not there: the nearest folder that is, and what lies in it, each with whether the rest of
#: the path is there below it.
Neighbours = tuple[str, Mapping[str, bool]]
#: Bash that prints these of the paths that it reads, each up to a NUL, and that are not there.
LOOK = r"""
shopt -s nullglob dotglob
while IFS= read -r -d '' path; do
  [ -e "$path" ] || [ -L "$path" ] && continue
  folder=${path%/*}
  while [ -n "$folder" ] && [ ! -d "$folder" ]; do folder=${folder%/*}; done
  below=${path#"$folder"/}; rest=; case $below in */*) rest=/${below#*/};; esac
  printf '%s\0%s\0' "$path" "$folder"
  entries=("$folder"/*)
  for entry in "${entries[@]:0:500}"; do
    mark=-; [ -n "$rest" ] && [ -e "$entry$rest" ] && mark=+
    printf '%s%s\0' "$mark" "${entry##*/}"
  done
  printf '\0'
done
"""

_LOCAL = re.compile(
    r"(?<![\w.:/$}~*?%-])/(?:etc|var|srv|home|opt|run|mnt|data|root|usr|boot|media)/[\w.+@/-]*[\w+@]"
)
_STORE = re.compile(r"(?<!:)/nix/store/[0-9a-z]{32}-[\w.+?=-]+(?:/[\w.+?=@-]+)+(?![\w.+?=@:%*$-])")
# A list that may name what not every package has.
_SEARCHED = re.compile(r"\w*(?:PATH|DIRS?|DIRECTORY|DIRECTORIES)=")
# Files that every handbook names, beside others that are called nearly so.
_KNOWN = re.compile(r"gshadow|sshd?_config|sub[gu]id|dhcpc?d|(?:ssh_host|id)_\w+")
# Programs, which other controls judge, and whose names are often near each other.
_PROGRAM = re.compile(r"/s?bin/")
_SAME_SUFFIX = ({".yml", ".yaml"}, {".htm", ".html"}, {".jpg", ".jpeg"})
_OVER_NETWORK = ("nfs", "cifs", "smb", "ceph", "fuse", "glusterfs", "davfs", "afs")
_LEAST = 5
_SHORT = 7


class Named(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A path that a unit names.

    :param where: the directive with its section, ``Unit.ConditionPathExists``, or the file.
    :param value: of the directive as a whole.
    """

    unit: str
    where: str
    path: str
    value: str = ""

    @property
    def place(self) -> str:
        """Where it stands, for people."""
        return f"{self.where.rpartition('.')[2]}=" if self.value else self.where

    @property
    def is_private(self) -> bool:
        """Whether it is a file of secrets, whose absence is another control's too."""
        return self.where.startswith(("Service.EnvironmentFile", "Service.LoadCredential"))


def named_by(unit: Unit, files: Sequence[observe.ReadFile]) -> Iterator[Named]:
    """Yield the paths outside of the store that a unit names, itself and in the files that it reads.

    :param files: as :func:`~pytest_nixos.observe.read_files` gives them.
    """
    for section, key, value in unit.directives():
        if key != "Documentation" and not value.startswith(("!", "|!")):
            for path in _LOCAL.findall(value):
                yield Named(unit=unit.name, where=f"{section}.{key}", path=path, value=value)
    for file in files:
        for path in _LOCAL.findall(file.text):
            yield Named(unit=unit.name, where=file.path, path=path)


def absent_in_store(unit: Unit, files: Sequence[observe.ReadFile]) -> Iterator[Named]:
    """Yield the paths in packages that a unit or a file that it reads names, and that the package does
    not have. What a script names it may try.

    :param files: as :func:`~pytest_nixos.observe.read_files` gives them.
    """
    for section, key, value in unit.directives():
        if key == "Environment" and _SEARCHED.match(value.strip("\"'")):
            continue
        program = value.split()[:1] if key.startswith("Exec") else []
        for path in _absent(value):
            # A program that is not there is never started, and that is told.
            if not any(word.endswith(path) for word in program):
                yield Named(unit=unit.name, where=f"{section}.{key}", path=path, value=value)
    for file in files:
        for path in () if file.is_script else _absent(file.text):
            yield Named(unit=unit.name, where=file.path, path=path)


def elsewhere(host: HostConfig) -> tuple[str, ...]:
    """Return the folders, each with a slash, below which a look may wait for another machine."""
    return tuple(
        f"{mounted.mount_point.rstrip('/')}/"
        for mounted in host.file_systems.values()
        if "x-systemd.automount" in mounted.options or mounted.fs_type.startswith(_OVER_NETWORK)
    )


def meant_by(path: str, neighbours: Neighbours, named: Collection[str]) -> str:
    """Return the path of which another one is a slip of the pen, ``""`` for none.

    :param named: what the same unit names: beside the right path a similar one is no slip.
    """
    folder, names = neighbours
    rest = path.removeprefix(f"{folder}/")
    written, slash, below = rest.partition("/")
    if _KNOWN.fullmatch(written.partition(".")[0]) or _PROGRAM.search(path):
        return ""
    for name in difflib.get_close_matches(written, sorted(names), n=3, cutoff=0.65):
        right = f"{folder}/{name}{slash}{below}"
        if _is_slip(written, name, surely=names[name]) and not any(
            _within(one, f"{folder}/{name}") for one in named
        ):
            return right
    return ""


def remedy_of(named: Named, meant: str) -> str:
    """Return module text with the path that is meant, or what to do."""
    section, _, key = named.where.partition(".")
    option = {"Unit": "unitConfig", "Service": "serviceConfig"}.get(section)
    stem, _, suffix = named.unit.rpartition(".")
    if (
        meant
        and named.value
        and option
        and suffix == "service"
        and not key.startswith("Exec")
        and key != "Environment"
    ):
        value = json.dumps(named.value.replace(named.path, meant))
        return f'systemd.services."{stem}".{option}.{key} = lib.mkForce {value};'
    right = (
        f"{meant} in place of {named.path}"
        if meant
        else f"a path that is there in place of {named.path}"
    )
    return f"# {named.unit}: write {right}, in the option that makes {named.place}."


def packages_have(path: str) -> str:
    """Return what the deepest folder on the way to a path of the store holds, for people."""
    place = Path(path).parent
    while not place.is_dir():
        place = place.parent
    names = sorted(entry.name for entry in place.iterdir())[:5]
    return f"{place} has {', '.join(names) or 'nothing'}"


def _absent(text: str) -> Iterator[str]:
    for path in dict.fromkeys(_STORE.findall(text)):
        top = Path(*Path(path).parts[:4])
        if top.is_dir() and not os.path.lexists(path):
            yield path


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _is_slip(written: str, meant: str, *, surely: bool) -> bool:
    """Whether one name is another one with a letter or two changed.

    :param surely: whether below that one lies what is looked for.
    """
    stem, other = PurePath(written).stem, PurePath(meant).stem
    suffix, of_other = PurePath(written).suffix, PurePath(meant).suffix
    if stem == other:
        return {suffix, of_other} in _SAME_SUFFIX
    plural = stem in (f"{other}s", other.removesuffix("s"))
    if suffix != of_other or (not surely and (len(stem) < _LEAST or plural)):
        return False
    changed = [
        (stem[i1:i2], other[j1:j2])
        for kind, i1, i2, j1, j2 in difflib.SequenceMatcher(None, stem, other).get_opcodes()
        if kind != "equal"
    ]
    letters = "".join(old + new for old, new in changed)
    most = 2 if len(stem) > _SHORT else 1
    few = sum(max(len(old), len(new)) for old, new in changed) <= most
    return letters.isalpha() and (few or sorted(stem) == sorted(other))


def read_neighbours(printed: bytes) -> Mapping[str, Neighbours]:
    """Read what :data:`LOOK` prints: of each path that is not there its neighbours."""
    found: dict[str, Neighbours] = {}
    for record in printed.decode(errors="replace").split("\0\0"):
        path, _, rest = record.partition("\0")
        folder, *names = rest.split("\0")
        if path:
            found[path] = (folder, {name[1:]: name[0] == "+" for name in names if name})
    return found
