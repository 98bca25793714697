"""User ids of a container: a range of this machine's ids that nothing else uses
(user_namespaces(7)).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_nixos.errors import MachineError
from pytest_nixos.nix.config.host_facts import HostConfig

__all__ = ["UNSAFE_OPTION", "UserRange", "choose_range", "own_tree", "ping_groups"]

#: Lets containers run with this machine's own user ids.
UNSAFE_OPTION = "--nixos-container-root-is-machine-root"

# Ids below 65536 are users' and services', those up to 524287 subordinate ids of the guest's users
# (login.defs(5)).
_SIZE = 0x80000
# Where systemd-nspawn and shadow take none from by themselves (systemd's docs/UIDS-GIDS.md).
_FIRST = 0x70000000
_END = 0xFFFF0000
_TRIES = 64
_REMEDY = (
    "run the host as a VM (--nixos-backend vm); a flake that you trust like your own shell may run "
    f"with {UNSAFE_OPTION}"
)
# An instance, not the template, which every host may have.
_CONTAINER_UNITS = re.compile(r"(?:container|systemd-nspawn)@[^.]")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRange:
    """The user and group ids of this machine that are 0 to ``size - 1`` in a container.

    :param base: id of the guest's root on this machine; a multiple of 65536.
    :param size: how many; a multiple of 65536.
    """

    base: int
    size: int

    def overlaps(self, first: int, count: int) -> bool:
        """Whether one of `count` ids from `first` on is in the range."""
        return first < self.base + self.size and self.base < first + count


def ping_groups(host: HostConfig, users: UserRange | None) -> str:
    """Return what a container has in place of ``net.ipv4.ping_group_range`` where the host declares
    groups that the container has not; ``""`` where it can have what is declared.

    NixOS declares ``0 2147483647`` for each host (nixos/modules/tasks/network-interfaces.nix). The
    kernel takes no group that the writer's user namespace does not map (net/ipv4/sysctl_net_ipv4.c),
    and systemd-sysctl.service fails where it refuses a value.
    """
    words = host.sysctls.get("net.ipv4.ping_group_range", "").split()
    if users is None or len(words) != 2 or not all(word.isdigit() for word in words):
        return ""
    first, last = map(int, words)
    return f"{first} {users.size - 1}" if first < users.size <= last else ""


def choose_range(
    host: HostConfig,
    *,
    size: int = _SIZE,
    root: Path = Path("/"),
    draw: Callable[[int], int] = secrets.randbelow,
) -> UserRange:
    """Choose a range that no user, subordinate range or process of this machine uses.

    :param size: how many ids; a multiple of 65536.
    :param root: where ``etc`` and ``proc`` are.
    :raises MachineError: if this process may not map as many (it is in a user namespace itself) or
        finds none free, or if the host could not run so.
    """
    name, etc, proc = host.name, root / "etc", root / "proc"
    nested = sorted(unit for unit in host.units if _CONTAINER_UNITS.match(unit))
    if nested:
        raise MachineError(
            f"{name}: {nested[0]}: a container cannot start containers of systemd-nspawn with user ids of their own, which needs "
            "device nodes; without private user ids root of the guest would be root of this machine",
            remedy=_REMEDY,
        )
    allowed = list(_allowed(proc / "self/uid_map"))
    used = [*_subordinate(etc / "subuid"), *_subordinate(etc / "subgid"), *_running(proc)]
    used += [(entry.pw_uid, 1) for entry in pwd.getpwall()]
    slots = (_END - _FIRST) // size
    for _ in range(_TRIES):
        found = UserRange(base=_FIRST + draw(slots) * size, size=size)
        inside = any(a <= found.base and found.base + size <= a + n for a, n in allowed)
        if inside and not any(found.overlaps(*taken) for taken in used):
            return found
    raise MachineError(
        f"{name}: no range of {size} user ids is free for the container: root of the guest would be root of this machine",
        remedy=f"run pytest outside of a container that has few user ids itself, or {_REMEDY}",
    )


def own_tree(root: Path, owner: int) -> None:
    """Give a directory and all below it to a user and group of that id; symbolic links
    themselves, never their targets.

    Only for trees that no guest has written to.
    """
    for directory, directories, files in os.walk(root):
        for entry in (".", *directories, *files):
            os.chown(os.path.join(directory, entry), owner, owner, follow_symlinks=False)  # noqa: PTH118


def _allowed(uid_map: Path) -> Iterator[tuple[int, int]]:
    try:
        lines = uid_map.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        inside, _, count = (int(word) for word in line.split())
        yield inside, count


def _subordinate(path: Path) -> Iterator[tuple[int, int]]:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split(":")
        if len(fields) == 3 and fields[1].isdigit() and fields[2].isdigit():
            yield int(fields[1]), int(fields[2])


def _running(proc: Path) -> Iterator[tuple[int, int]]:
    for entry in proc.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield entry.stat().st_uid, 1
