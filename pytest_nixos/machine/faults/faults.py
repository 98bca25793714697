"""Faults for tests: each is a context manager that brings a fault about, sees that it is there,
and undoes it.

    with nixos_faults.network_down():
        ...

What cannot be brought about on a backend raises :class:`FaultError` and changes nothing. What
cannot be undone raises
:class:`BrokenMachineError`: later checks on that machine then fail at once with this cause.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pytest_nixos.errors import BrokenMachineError, FaultError, MachineError, NixosError
from pytest_nixos.local.timing import poll
from pytest_nixos.machine.base import BackendName, Machine
from pytest_nixos.machine.boot.settle import parse_properties
from pytest_nixos.machine.capabilities import Freezable, Pluggable, Pullable, PulledDisk, Throttled
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.machine.disks.layout import layout_of
from pytest_nixos.machine.disks.tpm import DEFAULT_PCR, MOST_PCR, order_command

__all__ = ["Faults", "Hog"]

_MIB = 1 << 20
_STEP_LIMIT_S = 300.0
_INTERVAL_S = 0.2
_FILL = ".pytest-nixos-full"
_HOG = "pytest-nixos-memory-hog.service"
_CLOCK_SLACK_S = 60.0
_SIGNAL = re.compile(r"(SIG)?[A-Z][A-Z0-9+-]*")

# Ever smaller pieces until none fits; fallocate(2) writes no data, so even a large disk is full at
# once. A file system without fallocate is filled by writing. ext4 keeps up to 16 MiB that nobody
# gets (ext4_calculate_resv_clusters), so the proof of fullness is a write that fails.
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
  ! dd if=/dev/zero of="$file" bs=4K count=16 oflag=append conv=notrunc,fsync status=none 2>/dev/null
else
  [ $(( $(free) - leave )) -lt 33554432 ]
fi || {{ echo "$(( $(free) / 1048576 )) MiB are still free" >&2; exit 1; }}
"""
_HOG_IS_FULL = "/run/pytest-nixos-memory-hog"
# What tail reads from a pipe it keeps until the end, which never comes.
_HOLD_SCRIPT = (
    "{ head -c %sM /dev/urandom; : >%s; exec sleep infinity; } | exec tail -c %sM >/dev/null"
)
_HOG_STATE = f"systemctl show --property=ActiveState,Result {_HOG}"
_UNIT_STATE = "systemctl show --property=LoadState,ActiveState,MainPID %s"
_UPTIME = "/proc/uptime"
_ROOT_OPTIONS = "awk '$2 == \"/\" { print $4 }' /proc/self/mounts | tail -n 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hog:
    """A process of the guest that holds memory.

    :param memory_mib: what it set out to hold.
    """

    memory_mib: int
    _look: Callable[[], dict[str, str]]

    @property
    def is_alive(self) -> bool:
        """Whether it still holds its memory; the kernel, systemd-oomd or earlyoom may have ended
        it.
        """
        return self._look().get("ActiveState") == "active"

    @property
    def ended_by(self) -> str:
        """How it ended in systemd's words (``oom-kill``, ``signal``), ``""`` while it lives."""
        state = self._look()
        return "" if state.get("ActiveState") == "active" else state.get("Result", "")


class Faults:
    """Faults of one machine; several at once are undone in reverse order."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @contextlib.contextmanager
    def hang(self) -> Iterator[None]:
        """Stop the whole machine, as a hypervisor that is too busy would; meanwhile a command
        raises :class:`TransportError`.

        A VM's own monotonic clock stands still too.

        :raises FaultError: on a live host.
        """
        running = self._machine.running
        if not isinstance(running, Freezable):
            raise self._cannot("hang", "this backend cannot stop a machine")
        with self._change("hang", running.thaw):
            running.freeze()
            yield

    @contextlib.contextmanager
    def network_down(self) -> Iterator[None]:
        """Pull the network cable; afterwards the guest has its addresses again.

        The root command channel does not depend on the network.

        :raises FaultError: on a live host.
        """
        running = self._machine.running
        if not isinstance(running, Pluggable):
            raise self._cannot("network_down", "this backend has no cable that could be pulled")
        before = self._addresses()

        def plug() -> None:
            running.plug(connected=True)
            self._await(
                lambda: before <= self._addresses() or None,
                f"addresses {', '.join(sorted(before))} do not come back",
            )

        with self._change("network_down", plug):
            running.plug(connected=False)
            self._await(lambda: self._carriers() == "" or None, "the guest still sees a carrier")
            yield

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
    def memory_hog(self, memory_mib: int | None = None, *, leave_mib: int = 32) -> Iterator[Hog]:
        """Hold memory that neither compresses nor swaps, in a service of its own.

        :param memory_mib: MiB to hold; all that is available but for `leave_mib` if ``None``.
        :return: the hog, which may be killed by whatever guards the host.
        :raises FaultError: in a container, where it would be the host machine's memory, unless
            `memory_mib` is given.
        """
        if memory_mib is None:
            self._require_vm("memory_hog", "it shares the memory of the host machine")
            memory_mib = max(1, self._available_mib() - leave_mib)
        hold = shlex.quote(_HOLD_SCRIPT % (memory_mib, _HOG_IS_FULL, memory_mib))
        start = (
            f"rm -f {_HOG_IS_FULL}; systemd-run --quiet --unit={_HOG} --property=MemorySwapMax=0 "
            f'--setenv=PATH="$PATH" -- "$(type -P bash)" -c {hold}'
        )
        stop = f"systemctl stop {_HOG}; systemctl reset-failed {_HOG} 2>/dev/null; rm -f {_HOG_IS_FULL}"
        hog = Hog(memory_mib=memory_mib, _look=self._hog_state)
        with self._change("memory_hog", lambda: self._do(stop)):
            self._do(start)
            self._await(lambda: self._has_eaten(hog), f"the hog does not reach {memory_mib} MiB")
            yield hog

    @contextlib.contextmanager
    def clock_jump(self, seconds: float) -> Iterator[None]:
        """Move the guest's clock; afterwards it is right again, by the time that has gone by
        meanwhile.

        :param seconds: how far, backwards if negative.
        :raises FaultError: in a container, whose clock is the host machine's.
        """
        self._require_vm("clock_jump", "its clock is the host machine's")
        offset_s = self._clock_offset_s()
        with self._change("clock_jump", lambda: self._set_clock_offset(offset_s)):
            self._set_clock_offset(offset_s + seconds)
            moved_s = self._clock_offset_s() - offset_s
            if abs(moved_s - seconds) > _CLOCK_SLACK_S:
                raise FaultError(
                    f"{self._machine.name}: the clock moved by {moved_s:.0f} s, not {seconds:g} s",
                    remedy="see what else sets the guest's clock",
                )
            yield

    @contextlib.contextmanager
    def killed(self, unit: str, *, signal: str = "SIGKILL") -> Iterator[None]:
        """Send a signal to all processes of a unit; afterwards the unit is active again.

        :param unit: full name, such as ``"nginx.service"``.
        :raises FaultError: if the unit is not active.
        """
        name = shlex.quote(unit)
        if not _SIGNAL.fullmatch(signal):
            raise self._cannot("killed", f"{signal!r} is no name of a signal")
        state = self._properties(_UNIT_STATE % name)
        if state.get("ActiveState") != "active":
            raise self._cannot(
                "killed",
                f"{unit} is {state.get('LoadState', 'unknown')} and {state.get('ActiveState', 'unknown')}",
            )
        # What SIGKILL hits is gone for certain, though systemd may not have noticed it yet.
        killed_pid = state.get("MainPID", "0") if signal in ("SIGKILL", "KILL") else "0"
        with self._change("killed", lambda: self._revive(name, killed_pid)):
            self._do(f"systemctl kill --signal={signal} -- {name}")
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

    @contextlib.contextmanager
    def _change(self, fault: str, undo: Callable[[], object]) -> Iterator[None]:
        """Begin new epochs around a fault, and undo it whatever happens."""
        if self._machine.backend.name.runs_already:
            raise self._cannot(
                fault, "a machine that this session did not start is not broken on purpose"
            )
        self._machine.invalidate()
        try:
            yield
        finally:
            try:
                undo()
            except NixosError as err:
                raise BrokenMachineError(
                    f"{self._machine.name}: the fault {fault} cannot be undone: {err.message}",
                    remedy="use a machine of the test's own (nixos_fresh_machine) for this fault",
                ) from err
            finally:
                self._machine.invalidate()

    def _clock_offset_s(self) -> float:
        """Return how far the guest's clock is ahead of its uptime."""
        real, uptime = self._do(f"date +%s.%N; cut -d' ' -f1 {_UPTIME}").stdout_text.split()
        return float(real) - float(uptime)

    def _set_clock_offset(self, offset_s: float) -> None:
        self._do(
            f"date --set=@$(awk '{{ printf \"%.2f\", $1 + {offset_s:.2f} }}' {_UPTIME}) >/dev/null"
        )

    def _revive(self, name: str, killed_pid: str) -> None:
        def active() -> bool | None:
            found = self._properties(_UNIT_STATE % name)
            state = found.get("ActiveState", "")
            if killed_pid != "0" and found.get("MainPID") == killed_pid:
                return None
            if state in ("failed", "inactive"):
                self._do(f"systemctl reset-failed -- {name}; systemctl start -- {name}")
            return True if state == "active" else None

        self._await(active, f"{name} does not become active again")

    def _has_eaten(self, hog: Hog) -> bool | None:
        full = self._machine.run(f"test -e {_HOG_IS_FULL}").succeeded
        return True if full or not hog.is_alive else None

    def _hog_state(self) -> dict[str, str]:
        return self._properties(_HOG_STATE)

    def _available_mib(self) -> int:
        found = self._do("awk '$1 == \"MemAvailable:\" { print $2 }' /proc/meminfo")
        return int(found.stdout_text) // 1024

    def _root_is_writable(self) -> bool:
        return "rw" in self._do(_ROOT_OPTIONS).stdout_text.strip().split(",")

    def _addresses(self) -> set[str]:
        """Return global addresses of the cards that have a carrier, as ``INTERFACE
        ADDRESS/LENGTH``.
        """
        listing = self._do("ip -o address show scope global up").stdout_text
        return {
            f"{words[1]} {words[3]}"
            for words in (line.split() for line in listing.splitlines())
            if len(words) > 3 and words[2] == "inet"
        }

    def _scsi_disks(self) -> list[str]:
        return self._do("ls -d /sys/block/sd* 2>/dev/null || true").stdout_text.split()

    def _carriers(self) -> str:
        return self._do(
            "for card in /sys/class/net/*; do "
            '[ -e "$card/device" ] || [ "${card##*/}" = eth0 ] || continue; '
            '[ "$(cat "$card/carrier" 2>/dev/null)" != 1 ] || echo "${card##*/}"; done'
        ).stdout_text.strip()

    def _properties(self, command: str) -> dict[str, str]:
        return parse_properties(self._do(command).stdout_text)

    def _require_vm(self, fault: str, why: str) -> None:
        if self._machine.backend.name is not BackendName.VM:
            raise self._cannot(fault, why)

    def _cannot(self, fault: str, why: str) -> FaultError:
        return FaultError(
            f"{self._machine.name}: {fault} is not possible on this {self._machine.backend.name.value} machine: {why}",
            remedy="mark the test nixos_requires(...) with the places where the fault is possible, or run the host as a VM",
        )

    def _await(self, look: Callable[[], bool | None], problem: str) -> None:
        deadline = self._machine.deadline(_STEP_LIMIT_S)
        if poll(look, deadline=deadline, interval_s=_INTERVAL_S) is None:
            raise FaultError(
                f"{self._machine.name}: {problem} within {deadline.limit_s:g} s",
                remedy="look at the machine's journal",
            )

    def _do(self, command: str) -> CommandResult:
        result = self._machine.run(command, timeout_s=self._machine.deadline(_STEP_LIMIT_S).limit_s)
        if not result.succeeded:
            first = command.strip().splitlines()[0]
            raise FaultError(
                f"{self._machine.name}: {first!r} ended with {result.exit_status}: "
                f"{result.stderr_text.strip() or result.stdout_text.strip()}",
                remedy="see whether the host has what the fault needs (systemd, util-linux, coreutils)",
            )
        return result
