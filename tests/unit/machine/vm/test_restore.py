"""From a snapshot or by a boot: the decisions, with real files, a real process in QEMU's place,
and no guest.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import msgspec
import pytest

from pytest_nixos.errors import BootError, MachineError
from pytest_nixos.local.memory import HostMemoryError
from pytest_nixos.local.process import owned_process
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.boot.events import BootEventKind
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.machine.console import Console
from pytest_nixos.machine.snapshot.limits import CacheLimits
from pytest_nixos.machine.snapshot.record import STATE, Snapshot, snapshot_key
from pytest_nixos.machine.snapshot.store import SnapshotStore
from pytest_nixos.machine.spare.claim import Claimed
from pytest_nixos.machine.vm.restore import WarmStart
from pytest_nixos.machine.vm.running import VmRunning

PARTS = {"system": "/nix/store/x"}
KEY = snapshot_key(PARTS)


class Transport:
    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        del deadline, stdin
        return CommandResult(command=command, exit_status=0, stdout=b"", stderr=b"", duration_s=0.0)

    def close(self) -> None: ...


class Guest:
    """A machine that the rig has started."""

    def __init__(self, rig: Rig, pid: int, kind: str) -> None:
        self.rig, self.pid, self.kind = rig, pid, kind
        self.console, self.transport = Console(), Transport()
        self.console.append("Linux version 6")
        self.alive = True

    def save(self, state: Path, *, deadline: Deadline) -> None:
        del deadline
        if self.rig.cannot_save:
            raise MachineError("QEMU's migration is failed: disk full", remedy="none")
        state.write_bytes(b"devices")

    def thaw(self) -> None:
        self.rig.heard.append("thawed")

    def end(self, *, deadline: Deadline) -> None:
        del deadline
        self.alive = False

    def is_alive(self) -> bool:
        return self.alive

    def stop(self) -> None:
        self.alive = False
        self.rig.heard.append(f"{self.kind} stopped")


class Rig:
    """A launcher whose QEMU is a process that sleeps, with a disk in its run directory."""

    def __init__(self, directory: Path, pid: int) -> None:
        self.pid = pid
        self.run_dir = directory / "r"
        self.run_dir.mkdir()
        self.store = SnapshotStore(directory / "snapshots")
        self.heard: list[str] = []
        self.cannot_save = self.cannot_load = self.cannot_boot = False
        self.too_little_memory = self.cannot_start_here = False

    def cold(
        self, extra_argv: Sequence[str], deadline: Deadline, *, writable: tuple[Path, ...] = ()
    ) -> VmRunning:
        del deadline
        assert bool(writable) is bool(extra_argv)
        self.heard.append("booted with memory in a file" if extra_argv else "booted")
        if self.cannot_boot:
            raise BootError("kernel panic", remedy="none", state="kernel panic")
        (self.run_dir / "disk.qcow2").write_bytes(b"QFI\xfb")
        return cast("VmRunning", Guest(self, self.pid, "cold"))

    def clone(
        self, snapshot: Snapshot, stack: contextlib.ExitStack, deadline: Deadline
    ) -> VmRunning:
        del deadline
        if self.too_little_memory:
            raise HostMemoryError("too little", remedy="none")
        if self.cannot_load:
            raise MachineError("QEMU's migration is failed", remedy="none")
        assert snapshot.state.read_bytes() == b"devices"
        self.kept = stack.pop_all()
        self.heard.append("cloned")
        return cast("VmRunning", Guest(self, self.pid, "clone"))

    def adopt(
        self, snapshot: Snapshot, claimed: Claimed, stack: contextlib.ExitStack, deadline: Deadline
    ) -> VmRunning:
        del snapshot, claimed, deadline
        if self.cannot_load:
            raise MachineError("the guest does not answer", remedy="none")
        self.kept = stack.pop_all()
        self.heard.append("adopted")
        return cast("VmRunning", Guest(self, self.pid, "spare"))

    def take(self, *, not_before_s: float = 0.0) -> Guest | None:
        return cast("Guest | None", self._warm(not_before_s).take(Deadline.after(20.0)))

    def start(self, *, not_before_s: float = 0.0, limit_s: float = 20.0) -> Guest:
        return cast("Guest", self._warm(not_before_s).start(Deadline.after(limit_s)))

    def clone_only(self) -> Guest:
        return cast("Guest", self._warm(0.0).clone(Deadline.after(20.0)))

    def _warm(self, not_before_s: float) -> WarmStart:
        return WarmStart(
            store=self.store,
            limits=CacheLimits(),
            launcher=self,
            name="h",
            parts=PARTS,
            run_dir=self.run_dir,
            memory_mib=1,
            not_before_s=not_before_s,
            tell=self.tell,
            check_place=self.check_place,
        )

    def check_place(self) -> None:
        if self.cannot_start_here:
            raise MachineError("no sandbox can be made here", remedy="none")

    def tell(self, kind: BootEventKind, text: str) -> None:
        assert kind is BootEventKind.SNAPSHOT
        self.heard.append(text)

    def done(self) -> list[str]:
        """What happened since the last time, figures left out."""
        heard, self.heard = self.heard, []
        return [
            text.partition(" in ")[0] if "restored" in text or "saved in" in text else text
            for text in heard
        ]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    program = tmp_path / "qemu-sleeps"
    program.symlink_to(sys.executable)
    with owned_process([str(program), "-c", "import time; time.sleep(60)"]) as process:
        yield Rig(tmp_path, process.pid)


def test_the_first_start_boots_saves_and_clones(rig: Rig) -> None:
    guest = rig.start()
    assert guest.kind == "clone"
    assert rig.done() == [
        "booted with memory in a file",
        "saved",
        "cold stopped",
        "cloned",
        "restored",
    ]
    assert "restored in" in guest.console.tail(1)[0]


def test_the_second_start_clones(rig: Rig) -> None:
    rig.start()
    rig.done()
    assert rig.start().kind == "clone"
    assert rig.done() == ["cloned", "restored"]


def test_refresh_saves_anew_once(rig: Rig) -> None:
    rig.start()
    rig.kept.close()
    rig.done()
    since_s = time.time()
    rig.start(not_before_s=since_s)
    assert "booted with memory in a file" in rig.done()
    rig.start(not_before_s=since_s)
    assert rig.done() == ["cloned", "restored"]


def test_a_snapshot_that_does_not_load_is_discarded_and_made_anew(rig: Rig) -> None:
    rig.start()
    rig.kept.close()
    rig.done()
    rig.cannot_load = True
    assert rig.start().kind == "cold"
    done = rig.done()
    assert done[0] == (
        "the snapshot is discarded, booting: it does not start: QEMU's migration is failed"
    )
    assert done[-1] == "booted"


def test_a_snapshot_is_not_blamed_for_a_place_where_nothing_starts(rig: Rig) -> None:
    rig.start()
    rig.kept.close()
    rig.done()
    rig.cannot_load = rig.cannot_start_here = True
    with pytest.raises(MachineError, match="no sandbox can be made here"):
        rig.start()
    assert rig.done() == []
    assert rig.store.path(KEY).is_dir()


def test_a_clone_or_nothing(rig: Rig) -> None:
    with pytest.raises(MachineError, match="has no snapshot"):
        rig.clone_only()
    assert rig.done() == []
    rig.start()
    rig.kept.close()
    rig.done()
    assert rig.clone_only().kind == "clone"
    rig.kept.close()
    assert rig.done() == ["cloned", "restored"]
    rig.cannot_load = True
    with pytest.raises(MachineError, match="migration is failed"):
        rig.clone_only()
    # Who starts the machine in the usual way is told of it, and finds it.
    assert rig.done() == []
    assert rig.store.path(KEY).is_dir()


def test_a_damaged_snapshot_is_discarded_and_made_anew(rig: Rig) -> None:
    rig.start()
    rig.kept.close()
    os.truncate(rig.store.path(KEY) / STATE, 1)
    rig.done()
    assert rig.start().kind == "clone"
    done = rig.done()
    assert done[0] == "the snapshot is discarded, booting: state has 1 bytes, 7 were saved"
    assert done[-1] == "restored"


def test_a_machine_that_cannot_be_saved_goes_on(rig: Rig) -> None:
    rig.cannot_save = True
    guest = rig.start()
    assert (guest.kind, guest.alive) == ("cold", True)
    assert rig.done() == [
        "booted with memory in a file",
        "thawed",
        "no snapshot: QEMU's migration is failed: disk full",
    ]
    assert not list(rig.store.directory.glob(".new-*"))
    assert rig.store.entries() == {}


def test_without_room_for_a_snapshot_the_machine_is_booted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_nixos.machine.vm.restore._DISK_ROOM", 1 << 60)
    assert rig.start().kind == "cold"
    told, booted = rig.done()
    assert booted == "booted"
    assert "MiB are free, a snapshot may need" in told


def test_a_memory_file_that_runs_out_of_room_costs_a_second_boot(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.cannot_boot = True
    monkeypatch.setattr("pytest_nixos.machine.vm.restore._FULL", 1 << 60)
    with pytest.raises(BootError):
        rig.start()
    assert [text.partition(":")[0] for text in rig.done()] == [
        "booted with memory in a file",
        "no room for the guest's memory",
        "booted",
    ]


def test_a_host_that_does_not_boot_is_told_as_such(rig: Rig) -> None:
    rig.cannot_boot = True
    with pytest.raises(BootError, match="kernel panic"):
        rig.start()
    assert rig.done() == ["booted with memory in a file"]


def test_too_little_memory_is_an_error_and_the_snapshot_stays(rig: Rig) -> None:
    rig.start()
    rig.too_little_memory = True
    with pytest.raises(HostMemoryError):
        rig.start()
    assert list(rig.store.entries()) == [KEY]


def test_a_session_waits_for_another_one_that_saves(rig: Rig) -> None:
    with contextlib.ExitStack() as other:
        assert other.enter_context(rig.store.writing(KEY))
        timer = threading.Timer(0.5, other.close)
        timer.start()
        assert rig.start().kind == "clone"
        timer.join()
    assert rig.done()[0] == "waiting for another session that is saving this machine"


def test_a_session_does_not_wait_for_ever(rig: Rig) -> None:
    with rig.store.writing(KEY):
        assert rig.start(limit_s=1.0).kind == "cold"
    assert rig.done() == [
        "waiting for another session that is saving this machine",
        "another session is still saving this machine; booting without a snapshot",
        "booted",
    ]


def test_a_cache_that_cannot_be_made_costs_a_line(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    rig.store = SnapshotStore(tmp_path / "file/snapshots")
    assert rig.start().kind == "cold"
    told, booted = rig.done()
    assert told.startswith("the cache of snapshots cannot be used")
    assert booted == "booted"


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """A spare that waits, and what was asked for."""
    asked: list[tuple[str, float]] = []

    def claim(key: str, *, saved_at_s: float) -> object:
        asked.append((key, saved_at_s))
        return object()

    monkeypatch.setattr("pytest_nixos.machine.vm.restore.spares", lambda _key: ("one",))
    monkeypatch.setattr("pytest_nixos.machine.vm.restore.claim", claim)
    return asked


def test_a_spare_of_the_very_snapshot_is_taken(rig: Rig, claims: list[tuple[str, float]]) -> None:
    rig.start()
    rig.done()
    guest = rig.take()
    assert guest is not None
    assert guest.kind == "spare"
    assert rig.done() == ["adopted", "restored"]
    assert "from a spare of the snapshot of" in guest.console.tail(1)[0]
    ((key, saved_at_s),) = claims
    entry = rig.store.entries()[KEY]
    assert entry is not None
    # What a running machine may do is part of what a spare has to be.
    assert (key != "", saved_at_s) == (True, entry.record.saved_at_s)


def test_a_spare_that_does_not_answer_costs_a_line(
    rig: Rig, claims: list[tuple[str, float]]
) -> None:
    rig.start()
    rig.done()
    rig.cannot_load = True
    assert rig.take() is None
    assert rig.done() == ["the spare is not used: the guest does not answer"]
    assert claims
    assert list(rig.store.entries()) == [KEY]


def test_no_spare_of_what_is_damaged_missing_or_to_be_made_anew(
    rig: Rig, claims: list[tuple[str, float]]
) -> None:
    assert rig.take() is None
    rig.start()
    assert rig.take(not_before_s=time.time() + 60) is None
    (rig.store.path(KEY) / STATE).write_bytes(b"other")
    rig.done()
    assert rig.take() is None
    assert (rig.done(), claims) == ([], [])


def test_rights_are_part_of_what_a_spare_has_to_be(rig: Rig) -> None:
    plain = rig._warm(0.0)
    keys = {
        msgspec.structs.replace(plain, rights=rights).spare_key
        for rights in ({"sandboxed": "True"}, {"sandboxed": "False"}, {"network": "True"})
    }
    assert len(keys) == 3
    assert KEY not in keys
