"""Start a VM from its snapshot; without one, boot it, save it, and go on with a clone of it.

Whatever goes wrong with a snapshot costs time and one line, never the run: the machine is booted
then.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from pytest_nixos.errors import BootError, MachineError
from pytest_nixos.local.memory import HostMemoryError
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.boot.events import BootEventKind
from pytest_nixos.machine.snapshot.clone import memory_argv
from pytest_nixos.machine.snapshot.record import (
    MEMORY,
    Snapshot,
    SnapshotDamaged,
    damaged,
    snapshot_key,
)
from pytest_nixos.machine.snapshot.save import SnapshotSaving
from pytest_nixos.machine.snapshot.store import CacheLimits, SnapshotStore
from pytest_nixos.machine.spare.claim import Claimed, claim, end_spares, spares
from pytest_nixos.machine.vm.running import VmRunning

__all__ = ["Launcher", "WarmStart", "no_snapshot"]

_MIB = 1 << 20
_WAIT_SHARE = 0.5
_WAIT_INTERVAL_S = 0.2
# A spare that needs longer is no gain.
_TAKE_S = 30.0
# The disk of a fresh machine and the image of its store, beside the guest's memory.
_DISK_ROOM = 1 << 30
_FULL = 64 * _MIB

Tell = Callable[[BootEventKind, str], None]


class Launcher(Protocol):
    """Starts the machine in question, in one way or the other."""

    def cold(
        self, extra_argv: Sequence[str], deadline: Deadline, *, writable: tuple[Path, ...] = ()
    ) -> VmRunning:
        """Boot it by its run script; `writable` is what QEMU writes to beside the run directory."""
        ...

    def clone(
        self, snapshot: Snapshot, stack: contextlib.ExitStack, deadline: Deadline
    ) -> VmRunning:
        """Start it from a snapshot; what `stack` holds is undone at its end."""
        ...

    def adopt(
        self,
        snapshot: Snapshot,
        claimed: Claimed,
        stack: contextlib.ExitStack,
        deadline: Deadline,
    ) -> VmRunning:
        """Go on with a spare of that snapshot, likewise."""
        ...


class WarmStart(msgspec.Struct, frozen=True, kw_only=True):
    """One machine on its way up.

    :param parts: all that shapes it.
    :param memory_mib: memory of the guest.
    :param not_before_s: snapshots older than this are replaced; seconds since 1970.
    :param tell: told in one line what happens.
    :param rights: what a running machine has beside `parts`.
    :param check_place: raises where no machine at all can be started here; asked when a clone did not
        start, before its snapshot is blamed. A clone that starts has shown it.
    """

    store: SnapshotStore
    limits: CacheLimits
    launcher: Launcher
    name: str
    parts: Mapping[str, str]
    run_dir: Path
    memory_mib: int
    not_before_s: float
    tell: Tell
    rights: Mapping[str, str] = msgspec.field(default_factory=dict)
    check_place: Callable[[], None] = lambda: None

    @property
    def spare_key(self) -> str:
        """Name of all that a spare has to be."""
        return snapshot_key({**self.parts, **self.rights})

    def take(self, deadline: Deadline) -> VmRunning | None:
        """Go on with a spare that waits for such a run; ``None`` where there is none, or it is none
        that can be used.
        """
        if not spares(self.spare_key):
            return None
        try:
            return self._taken(deadline.within(_TAKE_S))
        except SnapshotDamaged:
            return None  # the usual way up tells it
        except (MachineError, OSError) as err:
            self._say(f"the spare is not used: {str(err).splitlines()[0]}")
            return None

    def _taken(self, deadline: Deadline) -> VmRunning | None:
        started_s = time.monotonic()
        with contextlib.ExitStack() as stack:
            snapshot = stack.enter_context(self._using(snapshot_key(self.parts)))
            if snapshot is None or snapshot.record.saved_at_s < self.not_before_s:
                return None
            claimed = claim(self.spare_key, saved_at_s=snapshot.record.saved_at_s)
            if claimed is None:
                return None
            running = self.launcher.adopt(snapshot, claimed, stack, deadline)
            self._tell_restored(running, snapshot, started_s, "a spare of the snapshot")
            return running

    def _tell_restored(
        self, running: VmRunning, snapshot: Snapshot, started_s: float, what: str
    ) -> None:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(snapshot.record.saved_at_s))
        text = f"restored in {time.monotonic() - started_s:.2f} s from {what} of {when}"
        running.console.append(f"pytest-nixos: {text}")
        self._say(text)

    def start(self, deadline: Deadline) -> VmRunning:
        """Start the machine.

        :raises BootError: if it does not come up.
        :raises HostMemoryError: if the host machine has too little memory for it.
        """
        key = snapshot_key(self.parts)
        try:
            warm = self._restored(key, deadline)
            return self._booted(key, deadline) if warm is None else warm
        except OSError as err:
            self._say(f"the cache of snapshots cannot be used: {err}; booting without it")
            return self.launcher.cold((), deadline)

    def clone(self, deadline: Deadline) -> VmRunning:
        """Start the machine from its snapshot, or not at all; a snapshot that cannot be used stays
        for :meth:`start`, which tells of it.

        :raises MachineError: if there is none, or it does not start.
        """
        try:
            running = self._clone(snapshot_key(self.parts), deadline)
        except OSError as err:
            raise no_snapshot(self.name) from err
        if running is None:
            raise no_snapshot(self.name)
        return running

    def _restored(self, key: str, deadline: Deadline) -> VmRunning | None:
        try:
            return self._clone(key, deadline)
        except HostMemoryError:
            raise
        except SnapshotDamaged as err:
            why = err.message
        except MachineError as err:
            self.check_place()
            why = f"it does not start: {err.message.splitlines()[0]}"
        gone = self.store.discard(key)
        self._say(f"the snapshot is {'discarded' if gone else 'not used'}, booting: {why}")
        return None

    def _clone(self, key: str, deadline: Deadline) -> VmRunning | None:
        with contextlib.ExitStack() as stack:
            snapshot = stack.enter_context(self._using(key))
            if snapshot is None or snapshot.record.saved_at_s < self.not_before_s:
                return None
            started_s = time.monotonic()
            running = self.launcher.clone(snapshot, stack, deadline)
            self._tell_restored(running, snapshot, started_s, "the snapshot")
            return running

    @contextlib.contextmanager
    def _using(self, key: str) -> Iterator[Snapshot | None]:
        try:
            with self.store.using(key) as snapshot:
                if snapshot is not None and snapshot.record.key != key:
                    raise damaged(f"it was made for another machine ({snapshot.record.key})")
                yield snapshot
        except (ValueError, KeyError, TypeError) as err:
            raise damaged(f"its record cannot be read: {err!r}") from err

    def _booted(self, key: str, deadline: Deadline) -> VmRunning:
        with contextlib.ExitStack() as stack:
            if not self._may_write(stack, key, deadline):
                self._say(
                    "another session is still saving this machine; booting without a snapshot"
                )
                return self.launcher.cold((), deadline)
            # Somebody else may have made it in the meantime.
            warm = self._restored(key, deadline)
            if warm is not None:
                return warm
            lacking = self._lacking_room()
            if lacking:
                self._say(lacking)
                return self.launcher.cold((), deadline)
            return self._boot_and_save(key, deadline)

    def _may_write(self, stack: contextlib.ExitStack, key: str, deadline: Deadline) -> bool:
        """Wait while another session makes the snapshot."""
        said = False

        def attempt() -> bool | None:
            nonlocal said
            with contextlib.ExitStack() as attempted:
                if attempted.enter_context(self.store.writing(key)):
                    stack.push(attempted.pop_all())
                    return True
            if not said:
                said = True
                self._say("waiting for another session that is saving this machine")
            return None

        limit = deadline.within(deadline.remaining_s * _WAIT_SHARE)
        return bool(poll(attempt, deadline=limit, interval_s=_WAIT_INTERVAL_S))

    def _lacking_room(self) -> str:
        free = shutil.disk_usage(self.store.directory).free
        needs = self.memory_mib * _MIB + _DISK_ROOM
        if free >= needs:
            return ""
        return (
            f"{self.store.directory}: {free // _MIB} MiB are free, a snapshot may need {needs // _MIB} MiB;"
            " booting without one"
        )

    def _boot_and_save(self, key: str, deadline: Deadline) -> VmRunning:
        # They hold the snapshot that is replaced.
        end_spares(self.spare_key)
        with self.store.draft() as draft:
            memory = draft / MEMORY
            memory.touch(mode=0o600)
            try:
                running = self.launcher.cold(
                    memory_argv(memory, memory_mib=self.memory_mib), deadline, writable=(draft,)
                )
            except BootError as err:
                # A guest that writes to memory whose file has no room kills its QEMU.
                if shutil.disk_usage(self.store.directory).free >= _FULL:
                    raise
                self._say(f"no room for the guest's memory: {err.message.splitlines()[0]}")
                return self._cold_again(draft, deadline)
            with contextlib.ExitStack() as undo:
                undo.callback(running.stop)
                saved = self._save(running, draft, key, deadline)
                if not saved and running.is_alive():
                    undo.pop_all()
                    return running
            if not saved:
                return self._cold_again(draft, deadline)
        warm = self._restored(key, deadline)
        return self.launcher.cold((), deadline) if warm is None else warm

    def _cold_again(self, draft: Path, deadline: Deadline) -> VmRunning:
        shutil.rmtree(draft, ignore_errors=True)
        return self.launcher.cold((), deadline)

    def _save(self, running: VmRunning, draft: Path, key: str, deadline: Deadline) -> bool:
        """Save a running machine, which then is gone; on failure it goes on, if it can."""
        started_s = time.monotonic()
        saving = SnapshotSaving(
            key=key,
            name=self.name,
            parts=self.parts,
            run_dir=self.run_dir,
            draft=draft,
            memory_mib=self.memory_mib,
        )
        try:
            record = saving.save(running, deadline=deadline)
            committed = self.store.commit(draft, record)
        except (MachineError, OSError) as err:
            self._say(f"no snapshot: {str(err).splitlines()[0]}")
            return False
        if not committed:
            self._say("no snapshot: the one before is in use")
            return False
        self.store.prune(self.limits)
        self._say(f"saved in {time.monotonic() - started_s:.1f} s")
        return True

    def _say(self, text: str) -> None:
        self.tell(BootEventKind.SNAPSHOT, text)


def no_snapshot(name: str) -> MachineError:
    """Make the error of a machine that has no snapshot to start from."""
    return MachineError(f"{name}: has no snapshot", remedy="start it by a boot")
