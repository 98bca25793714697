"""Files: what they are, without reading them, many in one call."""

from __future__ import annotations

import enum
import shlex
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_nixos.observe.base import Probe, ProbeOutput

__all__ = ["FileState", "FileType", "files"]

# One stat for all; links are not followed. Fields end in a unit separator and records in a NUL, because names may
# hold anything else. Links are read by the shell's loop only where there are any.
_READ = r"""
stat --printf='%n\037%f\037%u\037%g\037%U\037%G\037%s\037%Y\0' -- {paths}
printf '\035\0'
for path in {paths}; do
  [ -L "$path" ] && printf '%s\037' "$path" && readlink --zero -- "$path"
done
true
"""


class FileType(enum.Enum):
    """Type of a file, links not followed."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    SOCKET = "socket"
    FIFO = "fifo"
    CHARACTER_DEVICE = "character-device"
    BLOCK_DEVICE = "block-device"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """One file.

    :param mode: permission bits with set-user-id, set-group-id and sticky, as a number.
    :param user: name of its owner, ``UNKNOWN`` if the user id has none.
    :param target: what a link holds, ``""`` for others.
    """

    path: str
    type: FileType
    mode: int
    uid: int
    gid: int
    user: str
    group: str
    size_bytes: int
    modified_s: int
    target: str

    @property
    def is_in_store(self) -> bool:
        """Whether it is a link straight into the Nix store."""
        return self.target.startswith("/nix/store/")

    @property
    def is_world_writable(self) -> bool:
        """Whether anybody may write to it; a link's own bits mean nothing."""
        return self.type is not FileType.LINK and bool(self.mode & stat.S_IWOTH)


_TYPES = {
    stat.S_IFREG: FileType.FILE,
    stat.S_IFDIR: FileType.DIRECTORY,
    stat.S_IFLNK: FileType.LINK,
    stat.S_IFSOCK: FileType.SOCKET,
    stat.S_IFIFO: FileType.FIFO,
    stat.S_IFCHR: FileType.CHARACTER_DEVICE,
    stat.S_IFBLK: FileType.BLOCK_DEVICE,
}


def files(paths: Sequence[str], *, name: str = "file") -> Probe[Mapping[str, FileState | None]]:
    """Ask for the type, mode, owner and link target of many paths.

    :return: probe of path to state, ``None`` for a path that is not there.
    """
    wanted = list(dict.fromkeys(paths))
    return Probe(
        name=name,
        script=_READ.format(paths=shlex.join(wanted)) if wanted else ":",
        parse=lambda output: _parse(output, wanted),
    )


def _parse(output: ProbeOutput, wanted: Sequence[str]) -> Mapping[str, FileState | None]:
    states, _, links = output.text.partition("\035\0")
    targets = dict(_pair(record) for record in links.split("\0"))
    found: dict[str, FileState | None] = dict.fromkeys(wanted)
    for record in states.split("\0"):
        state = _parse_record(record, targets)
        if state is not None and state.path in found:
            found[state.path] = state
    return found


def _parse_record(record: str, targets: Mapping[str, str]) -> FileState | None:
    fields = record.split("\037")
    try:
        path, mode, uid, gid, user, group, size, modified = fields
        bits = int(mode, 16)
        return FileState(
            path=path,
            type=_TYPES.get(stat.S_IFMT(bits), FileType.UNKNOWN),
            mode=stat.S_IMODE(bits),
            uid=int(uid),
            gid=int(gid),
            user=user,
            group=group,
            size_bytes=int(size),
            modified_s=int(modified),
            target=targets.get(path, ""),
        )
    except (ValueError, OverflowError):
        return None


def _pair(record: str) -> tuple[str, str]:
    path, _, target = record.partition("\037")
    return path, target
