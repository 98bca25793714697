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

from pytest_nixos.errors import FaultError
from pytest_nixos.machine.capabilities import Freezable, Pluggable
from pytest_nixos.machine.faults.disks import DiskFaults

__all__ = ["Faults", "Hog"]

_HOG = "pytest-nixos-memory-hog.service"
_CLOCK_SLACK_S = 60.0
_SIGNAL = re.compile(r"(SIG)?[A-Z][A-Z0-9+-]*")
_HOG_IS_FULL = "/run/pytest-nixos-memory-hog"
# What tail reads from a pipe it keeps until the end, which never comes.
_HOLD_SCRIPT = (
    "{ head -c %sM /dev/urandom; : >%s; exec sleep infinity; } | exec tail -c %sM >/dev/null"
)
_HOG_STATE = f"systemctl show --property=ActiveState,Result {_HOG}"
_UNIT_STATE = "systemctl show --property=LoadState,ActiveState,MainPID %s"
_UPTIME = "/proc/uptime"


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


class Faults(DiskFaults):
    """Faults of one machine; several at once are undone in reverse order."""

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

    def _carriers(self) -> str:
        return self._do(
            "for card in /sys/class/net/*; do "
            '[ -e "$card/device" ] || [ "${card##*/}" = eth0 ] || continue; '
            '[ "$(cat "$card/carrier" 2>/dev/null)" != 1 ] || echo "${card##*/}"; done'
        ).stdout_text.strip()
