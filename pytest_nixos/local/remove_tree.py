"""Remove a directory tree by file descriptors: nothing outside of it is touched, whatever
happens to it meanwhile.

Paths are looked up once. A tree that is gone, or a name in it that became a symbolic link or a
mount in the meantime, must not lead to another user's files: each directory is opened without
following links and worked on by its descriptor (openat(2)).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
from pathlib import Path

__all__ = ["remove_tree"]

# linux/fs.h: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS (64-bit), FS_IMMUTABLE_FL, FS_APPEND_FL.
_GET_FLAGS = 0x80086601
_SET_FLAGS = 0x40086602
_LOCKED = 0x10 | 0x20
# A guest may nest directories deeper than descriptors or Python's stack allow: what lies deeper is
# moved up first.
_DEEPEST = 40
_MOVED = ".pytest-nixos-moved"
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def remove_tree(path: Path) -> None:
    """Remove a directory and all below it, without write permission or with ``chattr +i``
    included; never raises.

    A symbolic link in its place is removed itself. Other mounts below it stay as they are, and with
    them the directories that lead there. The mode of no directory outside of the tree changes.
    """
    with contextlib.suppress(OSError):
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _Removal(parent, path.name).run()
        finally:
            os.close(parent)


class _Removal:
    """One tree on its way out.

    :param parent: descriptor of the directory that holds it; not ours.
    """

    def __init__(self, parent: int, name: str) -> None:
        self._parent = parent
        self._name = name
        self._moved = 0

    def run(self) -> None:
        top = _open_directory(self._name, self._parent)
        if top is None:
            _unlink(self._name, self._parent)
            return
        try:
            mount, before = _mount_of(top), -1
            # Once more as long as directories were moved up.
            while before != self._moved:
                before = self._moved
                self._empty(top, top, mount, depth=0)
        finally:
            os.close(top)
        with contextlib.suppress(OSError):
            os.rmdir(self._name, dir_fd=self._parent)

    def _empty(self, directory: int, top: int, mount: int, *, depth: int) -> None:
        _open_up(directory)
        for name in os.listdir(directory):
            child = _open_directory(name, directory)
            if child is None:
                _unlink(name, directory)
                continue
            try:
                if _mount_of(child) != mount:
                    continue
                if depth >= _DEEPEST:
                    self._move_up(name, directory, top)
                    continue
                self._empty(child, top, mount, depth=depth + 1)
            finally:
                os.close(child)
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=directory)

    def _move_up(self, name: str, directory: int, top: int) -> None:
        with contextlib.suppress(OSError):
            os.rename(name, f"{_MOVED}-{self._moved}", src_dir_fd=directory, dst_dir_fd=top)
            self._moved += 1


def _open_directory(name: str, parent: int) -> int | None:
    """Open a directory by its name in another one; ``None`` if it is none, or gone."""
    try:
        handle = os.open(name, _LOOK | os.O_DIRECTORY, dir_fd=parent)
    except OSError:
        return None
    try:
        # By way of the descriptor: the name may lead elsewhere by now.
        place = f"/proc/self/fd/{handle}"
        try:
            return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError:
            Path(place).chmod(stat.S_IRWXU)
            return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    finally:
        os.close(handle)


def _open_up(directory: int) -> None:
    """Let a directory's entries be removed."""
    _unlock(directory)
    if not os.fstat(directory).st_mode & stat.S_IWUSR:
        with contextlib.suppress(OSError):
            os.fchmod(directory, stat.S_IRWXU)


def _unlink(name: str, directory: int) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return
    except OSError:
        with contextlib.suppress(OSError):
            handle = os.open(name, _READ, dir_fd=directory)
            try:
                _unlock(handle)
            finally:
                os.close(handle)
            os.unlink(name, dir_fd=directory)


def _unlock(handle: int) -> None:
    """Take ``chattr +i`` and ``+a`` off: NixOS' activation protects a container's /var/empty so."""
    with contextlib.suppress(OSError):
        flags = struct.unpack("l", fcntl.ioctl(handle, _GET_FLAGS, struct.pack("l", 0)))[0]
        if flags & _LOCKED:
            fcntl.ioctl(handle, _SET_FLAGS, struct.pack("l", flags & ~_LOCKED))


def _mount_of(handle: int) -> int:
    """Return the id of the mount that a descriptor lies on (proc(5), fdinfo); -1 if the kernel
    does not tell.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/self/fdinfo/{handle}").read_text().splitlines():
            key, _, value = line.partition(":")
            if key == "mnt_id":
                return int(value)
    return -1
