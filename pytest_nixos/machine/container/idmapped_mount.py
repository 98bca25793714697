"""Mount a directory a second time, read-only and with other owners (mount_setattr(2),
``MOUNT_ATTR_IDMAP``).

A program of its own, run by the stage in its private mount namespace: ``python -I -S
idmapped_mount.py SOURCE TARGET BASE SIZE``. Ids 0 to SIZE - 1 of SOURCE are BASE and following in
TARGET. ``mount -o X-mount.idmap`` does the same from util-linux 2.39 on, which Debian 12 and Ubuntu
24.04 do not have.
"""

from __future__ import annotations

import ctypes
import os
import sys

# Numbers of system calls from 424 on are the same on every architecture but Alpha; linux/mount.h,
# linux/fcntl.h.
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_CLONE_TREE, _CLOEXEC = 1, 0o2000000
_AT_FDCWD, _AT_EMPTY_PATH, _FROM_EMPTY_PATH = -100, 0x1000, 4
_RDONLY, _NOSUID, _NODEV, _IDMAP = 0x1, 0x2, 0x4, 0x100000
_CLONE_NEWUSER = 0x10000000


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns", ctypes.c_uint64),
    )


_LIBC = ctypes.CDLL(None, use_errno=True)


def _call(what: str, number: int, *arguments: object) -> int:
    done = int(_LIBC.syscall(ctypes.c_long(number), *arguments))
    if done < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return done


def _mapping(base: int, size: int) -> int:
    """Return a descriptor of a user namespace with that map; no process stays in it."""
    ready, ready_end = os.pipe()
    done, done_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(done_end)
        failed = _LIBC.unshare(_CLONE_NEWUSER)
        os.write(ready_end, b"1" if failed else b"0")
        os.read(done, 1)
        os._exit(0)
    os.close(ready_end)
    try:
        if os.read(ready, 1) != b"0":
            raise OSError("no user namespace can be made")
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{child}/{name}", "w") as file:  # noqa: PTH123 - pathlib's import takes half of the program's time
                file.write(f"0 {base} {size}\n")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(done_end)
        os.waitpid(child, 0)


def mount(source: str, target: str, base: int, size: int) -> None:
    """Do it.

    :raises OSError: if the kernel or the file system of `source` cannot.
    """
    namespace = _mapping(base, size)
    tree = _call("open_tree", _OPEN_TREE, _AT_FDCWD, os.fsencode(source), _CLONE_TREE | _CLOEXEC)
    wanted = _Attributes(_IDMAP | _RDONLY | _NOSUID | _NODEV, 0, 0, namespace)
    length = ctypes.c_size_t(ctypes.sizeof(wanted))
    arguments = (tree, b"", _AT_EMPTY_PATH, ctypes.byref(wanted), length)
    _call("mount_setattr", _MOUNT_SETATTR, *arguments)
    where = (tree, b"", _AT_FDCWD, os.fsencode(target), _FROM_EMPTY_PATH)
    _call("move_mount", _MOVE_MOUNT, *where)


if __name__ == "__main__":
    try:
        mount(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    except OSError as err:
        sys.exit(
            f"pytest-nixos-stage: owners of {sys.argv[1]} cannot be mapped: {err.strerror or err}"
        )
