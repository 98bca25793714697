"""What a backend and its started machines may offer beyond running commands; each offers what it
can.

Whoever needs one of these asks with ``isinstance(machine.running, Powered)``: a live host over ssh
offers none.
"""

from __future__ import annotations

import enum
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import msgspec

from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.picture import Picture

__all__ = [
    "BootsFrom",
    "Displayed",
    "Freezable",
    "LostWrites",
    "Pluggable",
    "PortState",
    "Powered",
    "Preflight",
    "Pullable",
    "PulledDisk",
    "Reachable",
    "Resettable",
    "Storage",
    "Stored",
    "Throttled",
    "Way",
    "disk_id",
]


class PortState(enum.Enum):
    """What a stranger sees of a port."""

    OPEN = "open"
    CLOSED = "closed"
    FILTERED = "filtered"


class BootsFrom(enum.Enum):
    """What decides which generation a machine comes up in."""

    SCRIPT = "its run script"
    PROFILE = "the system profile"
    LOADER = "its boot loader"


@runtime_checkable
class Powered(Protocol):
    """A started machine that can be switched off and on again."""

    @property
    def boots_from(self) -> BootsFrom:
        """What decides which generation comes up: a VM that boots its kernel directly comes back
        into its script's own.
        """
        ...

    def power_off(self, *, orderly: bool, deadline: Deadline) -> None:
        """Shut the machine down, or cut its power; what is on its disk stays.

        :raises MachineError: if an orderly shutdown is not over by `deadline`.
        """
        ...

    def power_on(self, *, generation: int | None, deadline: Deadline) -> None:
        """Start the machine again and wait until its boot has settled.

        :param generation: number of the generation to boot, where the backend itself chooses.
        :raises BootError: if it does not come up.
        """
        ...


@runtime_checkable
class Resettable(Protocol):
    """A started machine that may be a clone of a snapshot."""

    @property
    def is_clone(self) -> bool:
        """Whether it was started from a snapshot."""
        ...


@runtime_checkable
class Freezable(Protocol):
    """A machine whose processors can be stopped; its own clock may or may not go on."""

    def freeze(self) -> None:
        """Stop all of it at once."""
        ...

    def thaw(self) -> None:
        """Let it go on; harmless where it was not stopped."""
        ...


@runtime_checkable
class Resting(Protocol):
    """A machine that can be stopped for later, and then is as one that has just started."""

    def rest(self, *, deadline: Deadline) -> None:
        """Stop all of it until :meth:`rouse`.

        :raises MachineError: if it does not stop.
        """
        ...

    def rouse(self, *, deadline: Deadline) -> None:
        """Let it go on, at the time of now; harmless where it does not rest.

        :raises MachineError: if it does not answer, or is not as it was.
        """
        ...


@runtime_checkable
class Pluggable(Protocol):
    """A machine whose network cable can be pulled."""

    def plug(self, *, connected: bool) -> None:
        """Connect or cut its network cards; the guest sees the carrier come and go."""
        ...


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How a program of this machine connects to a port of a guest from outside.

    :param prefix: words before the program's own, which put it into the right network.
    :param host: address to connect to.
    :param port: port to connect to.
    """

    prefix: tuple[str, ...]
    host: str
    port: int


@runtime_checkable
class Reachable(Protocol):
    """A machine to which programs of this machine can connect from outside of it."""

    #: from where the guest sees such a connection come
    outside_address: str

    def way_to(self, port: int, *, deadline: Deadline) -> AbstractContextManager[Way]:
        """Open a way to a TCP port of the guest, as a stranger on its network has it, until the
        context ends.

        :raises MachineError: if there is none.
        """
        ...


@runtime_checkable
class Displayed(Protocol):
    """A machine with a screen."""

    def screen(self) -> Picture:
        """Return what its screen shows.

        :raises MachineError: if it has no screen.
        """
        ...


@runtime_checkable
class Throttled(Protocol):
    """A machine whose disks can be slowed down."""

    def throttle(self, *, operations_per_s: int) -> None:
        """Let each disk do so many reads and writes a second, ``0`` for as many as it can.

        :raises MachineError: if it has no disk that could be slowed down, or one is as fast as
            before.
        """
        ...


class PulledDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk that is out of its machine.

    :param disk: by the name that the kernel first gave it (``sda``).
    :param file: its image.
    :param image_format: as QEMU calls it (``qcow2``).
    """

    disk: str
    file: str
    image_format: str


def disk_id(disk: str) -> str:
    """Return the id by which QEMU knows the device of a disk that can be pulled."""
    return f"pytest-nixos-disk-{disk}"


@runtime_checkable
class Pullable(Protocol):
    """A machine whose disks can be pulled."""

    def pull_disk(self, disk: str) -> PulledDisk:
        """Take a disk out without a warning.

        :param disk: by the name that the kernel first gave it (``sda``).
        :raises MachineError: if it has no such disk, or that disk cannot be pulled.
        """
        ...

    def plug_disk(self, pulled: PulledDisk) -> None:
        """Put a disk back.

        :raises MachineError: if it cannot be.
        """
        ...


class LostWrites(msgspec.Struct, frozen=True, kw_only=True):
    """What a loss of power took from a disk.

    :param disk: by the name that the kernel first gave it (``vda``).
    :param lost: writes that the guest had not flushed, and that are gone.
    :param lost_bytes: in them.
    :param kept: writes that reached the disk.
    :param flushes: that the guest asked for.
    """

    disk: str
    lost: int
    lost_bytes: int
    kept: int
    flushes: int


class Storage(Protocol):
    """The disks of a machine, as something can go wrong with them."""

    def log_writes(self, *, deadline: Deadline) -> None:
        """Write down from here on what the guest writes and flushes.

        :raises MachineError: if that cannot be done.
        """
        ...

    def stop_logging(self) -> None:
        """Forget what was written down; harmless where nothing was."""
        ...

    def lose_writes(
        self, *, survive: float, seed: int, deadline: Deadline
    ) -> tuple[LostWrites, ...]:
        """Cut the power, and leave on the disks what was flushed before; the machine is off then.

        :param survive: how much of the rest reaches the disks all the same, of 1.
        :param seed: of that choice.
        :raises MachineError: if it was not written down, or a disk cannot be made.
        """
        ...

    def fail(self, disk: str, *, kinds: tuple[str, ...]) -> None:
        """Let a disk's operations end with an error.

        :param disk: by the name that the kernel first gave it (``vda``).
        :param kinds: ``"read"``, ``"write"``, ``"flush"``.
        :raises MachineError: if there is no such disk.
        """
        ...

    def mend(self) -> None:
        """Let all operations of all disks end as they should; harmless where they do."""
        ...


@runtime_checkable
class Stored(Protocol):
    """A machine whose disks may lose and refuse writes."""

    @property
    def storage(self) -> Storage:
        """Its disks."""
        ...


@runtime_checkable
class Preflight(Protocol):
    """A backend that can tell beforehand whether it works on this machine."""

    def preflight(self, name: str) -> None:
        """Look whether this machine has what a machine of this backend needs; called before
        anything is built.

        :param name: of the host, for messages.
        :raises NixosError: naming what is missing, and how to get it.
        """
        ...
