"""What a strategy hands over when a container is on its way up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from pytest_nixos.machine.container.boot_notice import BootNotice
from pytest_nixos.machine.serial_process import SerialProcess

__all__ = ["Launched"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """A container on its way up.

    :param process: its console; when it ends, so has the container.
    :param find_leader: returns the id of its process 1 once it exists.
    :param outside_pid: a process in the network in which the container's neighbour lives.
    :param interface: the outer end of the container's link there.
    :param more: the guest's further interfaces that have a link of their own there.
    :param target: the container's address there.
    :param guest_cgroup: returns the group of the guest's processes as a directory of this process's
        view.
    :param limits_reached: says which limits the container has come to since it was last asked.
    :param channel: directory with the channel's named pipes; there once the container exists.
    :param notice: tells when its systemd has ended its boot.
    :param life: what ends with this run of the container, unlike its root directory.
    :param relaunch: starts it again on the same root directory, in the system profile's generation
        or the one of that number; ``None`` where that cannot be done.
    :param on_created: called with the id of its process 1 once that exists, before its systemd can
        have started; it returns what to call at the end.
    """

    process: SerialProcess
    find_leader: Callable[[], int | None]
    outside_pid: int
    interface: str
    target: IPv4Address
    guest_cgroup: Callable[[], Path | None]
    limits_reached: Callable[[], Sequence[str]]
    channel: Path
    on_created: Callable[[int], Callable[[], None]]
    notice: BootNotice
    life: contextlib.ExitStack
    relaunch: Callable[[int | None], Launched] | None = None
    more: tuple[str, ...] = ()
