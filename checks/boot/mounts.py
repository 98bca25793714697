"""Mounts for which a boot ended in emergency mode: which they are, why, and what mends them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pytest_nixos import HostConfig

__all__ = ["LostMount", "lost_mounts", "remedy_of_lost"]

# What systemd says on the console and in the journal; a mount unit is described by its path.
_FAILED = re.compile(r"Failed to mount (?:\S+\.mount - )?(?P<path>/\S*?)\.?$")
_WAITED = re.compile(r"Dependency failed for (?:\S+\.mount - )?(?P<path>/\S*?)\.?$")
# What mount(8) says of it.
_WORDS = re.compile(r"mount(?:\[\d+\])?: (?P<path>/[^\s:]*): (?P<words>\S.*)$")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_MOST = 160


class LostMount(NamedTuple):
    """A declared mount that could not be made.

    :param words: why, as mount(8) says; ``""`` where it says nothing.
    """

    path: str
    words: str


def lost_mounts(said: Iterable[str], host: HostConfig) -> tuple[LostMount, ...]:
    """Return the declared file systems that a boot's last lines call failed.

    :param said: of the console and of the journal.
    """
    lines = [_COLOURS.sub("", line).strip() for line in said]
    words: Mapping[str, str] = {
        m["path"]: m["words"][:_MOST] for line in lines if (m := _WORDS.search(line))
    }
    for pattern in (_FAILED, _WAITED):
        paths = [m["path"] for line in lines if (m := pattern.search(line))]
        if found := [path for path in dict.fromkeys(paths) if path in host.file_systems]:
            return tuple(LostMount(path, words.get(path, "")) for path in found)
    return ()


def remedy_of_lost(lost: Iterable[LostMount], host: HostConfig) -> str:
    """Return what mends them, and the module text with which the host boots without them."""
    texts = []
    for mount in lost:
        declared = host.file_systems[mount.path]
        options = ",".join(declared.options) or "no options"
        option = f'fileSystems."{mount.path}"'
        texts.append(
            f"# {option}: correct its device ({declared.device}), fsType ({declared.fs_type}) or options ({options});\n"
            f"# a host that can do without it boots all the same by\n"
            f'{option}.options = [ "nofail" ];'
        )
    return "\n".join(texts)
