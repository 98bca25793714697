"""Faults of a machine's disks."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.capabilities import (
    LostWrites,
    Pullable,
    PulledDisk,
    Storage,
    Stored,
    Throttled,
)
from pytest_nixos.machine.disks.layout import layout_of
from pytest_nixos.machine.disks.tpm import DEFAULT_PCR, MOST_PCR, order_command
from pytest_nixos.machine.faults.base import FaultBase

__all__ = ["DiskFaults", "WriteCache"]

_MIB = 1 << 20
_STEP_LIMIT_S = 300.0
# What ext4 has given up on still counts as mounted rw since Linux 6.12: only a write tells.
_WRITABLE = (
    """awk '$1 ~ "^/dev/" && $4 ~ /^rw(,|$)/ { print $2 }' /proc/self/mounts | sort -u """
    """| while IFS= read -r place; do touch -r "$place" -- "$place" 2>/dev/null && echo "$place"; done; true"""
)
_FILL = ".pytest-nixos-full"
_ROOT_OPTIONS = "awk '$2 == \"/\" { print $4 }' /proc/self/mounts | tail -n 1"

# Ever smaller pieces until none fits; fallocate(2) writes no data, so even a large disk is full at
# once. A file system without fallocate is filled by writing. ext4 keeps up to 16 MiB that nobody
# gets (ext4_calculate_resv_clusters), so the proof of fullness is a write that fails. It takes what is
# left by sectors, vfat's smallest cluster: a boot entry needs no more.
_FILL_SCRIPT = """
file={file} leave={leave} offset=0
: >"$file" || exit 1
free() {{ echo $(( $(stat --file-system --format='%f * %S' "${{file%/*}}/") )); }}
left=$(( $(free) - leave )) size=$left
while [ $size -ge 4096 ]; do
  if fallocate --offset $offset --length $size "$file" 2>/dev/null; then
    offset=$((offset + size)) left=$((left - size))
    [ $size -le $left ] || size=$left
  else
    size=$((size / 2))
  fi
done
if [ $offset -eq 0 ]; then dd if=/dev/zero of="$file" bs=64K count=$((left / 65536)) status=none; fi
sync --file-system "$file"
if [ "$leave" -eq 0 ]; then
  ! dd if=/dev/zero of="$file" bs=512 count=128 oflag=append conv=notrunc,fsync status=none 2>/dev/null
else
  [ $(( $(free) - leave )) -lt 33554432 ]
fi || {{ echo "$(( $(free) / 1048576 )) MiB are still free" >&2; exit 1; }}
"""


class WriteCache:
    """The write caches of a machine's disks, made by :meth:`DiskFaults.volatile_write_cache`."""

    def __init__(self, machine: Machine, storage: Storage) -> None:
        self._machine, self._storage = machine, storage

    def lose_power(self, *, survive: float = 0.0, seed: int = 0) -> tuple[LostWrites, ...]:
        """Cut the power and start the machine again on what its disks hold then: all that the guest
        had flushed, and nothing of the rest, or some of it in an order of its own.

        :param survive: how much of what was not flushed reaches the disks all the same, from 0 to 1.
            A real disk writes its cache in any order, so that a later write may be there and an
            earlier one not.
        :param seed: of that choice; the same writes and the same seed give the same disk.
        :return: what each disk lost.
        :raises BootError: if the machine does not come up again.
        :raises MachineError: if the power was lost before within the fault.
        """
        deadline = self._machine.deadline(_STEP_LIMIT_S)
        lost = self._storage.lose_writes(survive=survive, seed=seed, deadline=deadline)
        self._machine.power_off(orderly=False)
        self._machine.power_on()
        return lost


class DiskFaults(FaultBase):
    """Faults of the disks of one machine."""

    @contextlib.contextmanager
    def disk_full(self, directory: str = "/", *, leave_mib: int = 0) -> Iterator[None]:
        """Fill the file system that holds `directory`, root's reserve included.

        :param leave_mib: MiB to leave free.
        :raises FaultError: in a container, whose file systems are those of the host machine.
        """
        self._require_vm("disk_full", "its files lie on the disk of the host machine")
        file = shlex.quote(f"{directory.rstrip('/')}/{_FILL}")
        with self._change("disk_full", lambda: self._do(f"rm -f -- {file} && sync")):
            self._do(_FILL_SCRIPT.format(file=file, leave=leave_mib * _MIB))
            yield

    @contextlib.contextmanager
    def slow_disk(self, *, operations_per_s: int = 20) -> Iterator[None]:
        """Let the machine's disks do so few reads and writes a second, as one that is dying or
        shared with a busy neighbour.

        :param operations_per_s: of each disk.
        :raises FaultError: in a container, whose disk is the host machine's.
        """
        running = self._machine.running
        if operations_per_s < 1:
            raise self._cannot("slow_disk", f"{operations_per_s} operations a second are none")
        if not isinstance(running, Throttled):
            raise self._cannot("slow_disk", "its files lie on the disk of the host machine")
        with self._change("slow_disk", lambda: running.throttle(operations_per_s=0)):
            running.throttle(operations_per_s=operations_per_s)
            yield

    @contextlib.contextmanager
    def volatile_write_cache(self) -> Iterator[WriteCache]:
        """Let the machine's disks keep what is written to them in a cache that forgets it without
        power, until the guest flushes it (``fsync``, ``sync``, a journal's commit).

        QEMU hands what a guest writes to the host machine's kernel, which keeps it when QEMU is
        killed: a crash alone loses nothing that the guest has written.

        :return: the cache, whose :meth:`WriteCache.lose_power` cuts the power.
        :raises FaultError: where the machine is no VM with disks of its own.
        """
        storage = self._storage("volatile_write_cache")
        with self._change("volatile_write_cache", storage.stop_logging):
            try:
                storage.log_writes(deadline=self._machine.deadline(_STEP_LIMIT_S))
            except MachineError as err:
                raise self._cannot("volatile_write_cache", err.message) from err
            yield WriteCache(self._machine, storage)

    @contextlib.contextmanager
    def failing_disk(self, disk: str = "vda", *, reads: bool = False) -> Iterator[None]:
        """Let each write to a disk end with an error (``EIO``), as one that is worn out; a file
        system that gives up over it is started afresh afterwards, with the whole machine.

        :param disk: by the name that the kernel first gave it (``"vda"``, ``"sda"``).
        :param reads: let reads end so too.
        :raises FaultError: where the machine has no such disk.
        """
        storage = self._storage("failing_disk")
        before = self._writable_places()

        def mend() -> None:
            storage.mend()
            if before - self._writable_places():
                self._machine.power_off(orderly=False)
                self._machine.power_on()

        with self._change("failing_disk", mend):
            try:
                storage.fail(disk, kinds=("write", "flush", *(("read",) if reads else ())))
            except MachineError as err:
                raise self._cannot("failing_disk", err.message) from err
            yield

    @contextlib.contextmanager
    def disk_pulled(self, disk: str) -> Iterator[None]:
        """Pull a SCSI disk out; afterwards it is back, under whatever name is free then, and an
        array that lost it has not taken it back by itself.

        :param disk: by the name that the kernel first gave it, such as ``"sda"``.
        :raises FaultError: where the machine has no such disk; only VMs with the host's own disks
            have any.
        """
        running = self._machine.running
        if not isinstance(running, Pullable):
            raise self._cannot("disk_pulled", "its files lie on the disk of the host machine")
        before = self._scsi_disks()
        pulled: list[PulledDisk] = []

        def plug() -> None:
            for disk_out in pulled:
                running.plug_disk(disk_out)
            self._await(
                lambda: len(self._scsi_disks()) >= len(before) or None,
                f"the guest does not see {disk} again",
            )

        with self._change("disk_pulled", plug):
            try:
                pulled.append(running.pull_disk(disk))
            except MachineError as err:
                raise self._cannot("disk_pulled", err.message) from err
            self._await(
                lambda: len(self._scsi_disks()) < len(before) or None,
                f"the guest still sees {disk}",
            )
            yield

    @contextlib.contextmanager
    def pcr_changed(self, pcr: int = DEFAULT_PCR) -> Iterator[None]:
        """Have another value measured into a PCR of the TPM at each boot inside this context, as by
        another firmware or kernel: what is bound to it is not given out. PCRs of the boot that goes
        on stay; reboot the machine inside, and once more behind it.

        :param pcr: its number.
        :raises FaultError: where no TPM unlocks a disk of the machine.
        """
        host = self._machine.spec.host
        layout = layout_of(host) if host.own_disks else None
        if layout is None or layout.first is None or not layout.by_tpm:
            raise self._cannot("pcr_changed", "no TPM unlocks a disk of its own")
        if not layout.first.partitions:
            raise self._cannot("pcr_changed", f"{layout.first.device} has no partition table")
        if not 0 <= pcr <= MOST_PCR:
            raise self._cannot("pcr_changed", f"a TPM has no PCR {pcr}")
        disk = layout.first.device
        with self._change("pcr_changed", lambda: self._do(order_command(disk, None))):
            self._do(order_command(disk, pcr))
            yield

    @contextlib.contextmanager
    def read_only_root(self) -> Iterator[None]:
        """Make the root file system read-only, as the kernel does after a disk error.

        :raises FaultError: in a container, and where the root file system is read-only already.
        """
        self._require_vm("read_only_root", "its root directory is one of the host machine")
        if not self._root_is_writable():
            raise self._cannot("read_only_root", "it is read-only already")
        # SysRq u turns every disk's file system read-only, open files or not; each has to be turned
        # back.
        writable = self._do(
            "awk '$1 ~ \"^/dev/\" && $4 ~ /^rw(,|$)/ { print $2 }' /proc/self/mounts"
        ).stdout_text.split()
        back = " && ".join(
            f"mount -o remount,rw {shlex.quote(place)}" for place in dict.fromkeys(["/", *writable])
        )
        with self._change("read_only_root", lambda: self._do(back)):
            self._do("mount -o remount,ro / 2>/dev/null || echo u >/proc/sysrq-trigger")
            self._await(
                lambda: None if self._root_is_writable() else True,
                "the root file system stays writable",
            )
            yield

    def _storage(self, fault: str) -> Storage:
        running = self._machine.running
        if not isinstance(running, Stored):
            raise self._cannot(fault, "its files lie on the disk of the host machine")
        return running.storage

    def _writable_places(self) -> set[str]:
        """Return where file systems of disks take writes."""
        return set(self._do(_WRITABLE).stdout_text.split())

    def _root_is_writable(self) -> bool:
        return "rw" in self._do(_ROOT_OPTIONS).stdout_text.strip().split(",")

    def _scsi_disks(self) -> list[str]:
        return self._do("ls -d /sys/block/sd* 2>/dev/null || true").stdout_text.split()
