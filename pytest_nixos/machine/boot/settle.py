"""Wait until a boot has settled: no jobs queued, whatever failed on the way; over any transport.

``systemctl is-system-running --wait`` can hang, tells nothing meanwhile, and while it is connected
systemd tells it of every change of every unit; the manager's properties ``SystemState`` and ``NJobs``
(org.freedesktop.systemd1, ``systemctl show``) cost one short process a look.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping

import msgspec

from pytest_nixos.errors import BootError, CommandTimeout, NoAnswerError
from pytest_nixos.local.pace import Pace
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.boot.activity import ACTIVITY, Activity, Stillness
from pytest_nixos.machine.boot.events import BootEventKind
from pytest_nixos.machine.boot.internet import (
    InternetNeed,
    NoWayOut,
    UnitStart,
    last_words,
    last_words_command,
)
from pytest_nixos.machine.boot.looks import Looks, Signs
from pytest_nixos.machine.command import Transport

__all__ = ["Job", "SettleLimits", "Settled", "parse_jobs", "parse_properties", "settle"]

# systemctl gives up by itself after 25 s (BUS_DEFAULT_TIMEOUT of sd-bus): no further program has to watch it.
_STATE = "systemctl show --property=SystemState --property=NJobs"
_JOBS = "timeout 20 systemctl list-jobs --no-legend --no-pager --full"
_UNIT = (
    "timeout 20 systemctl show --property=TimeoutStartUSec --property=TimeoutUSec "
    "--property=JobTimeoutUSec --property=JobRunningTimeoutUSec --property=CPUUsageNSec -- "
)
_STATUS = "timeout 20 systemctl status --no-pager --full --lines=0 -- "
_JOURNAL = (
    "timeout 20 journalctl --boot --no-pager --quiet --lines=20 --output=short-monotonic --unit="
)
_COMMAND_LIMIT_S = 30.0
_GRACE_SHARE = 0.1
_GRACE_S = 5.0
# A unit is idle if it used less than this share of one processor.
_IDLE_SHARE = 0.01
_TAIL = 12
_FINISHED = frozenset({"running", "degraded"})
_NO_SIGNS = Signs()


class SettleLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When a boot counts as finished or as stuck.

    :param named_after_s: seconds without any job ending after which the running ones are named.
    :param stuck_after_s: seconds after which a unit that alone holds up the boot and has no start
        limit counts as stuck, if it or the whole guest does nothing. More than the two minutes that
        ``systemd-networkd-wait-online`` takes to give up by itself.
    :param late_jobs_s: seconds to wait for jobs that come after the boot is finished (timers).
    """

    named_after_s: float = 10.0
    stuck_after_s: float = 150.0
    late_jobs_s: float = 20.0

    def at(self, pace: Pace) -> SettleLimits:
        """Return the limits as they are on this machine."""
        return SettleLimits(
            named_after_s=pace.limit(self.named_after_s),
            stuck_after_s=pace.limit(self.stuck_after_s),
            late_jobs_s=pace.limit(self.late_jobs_s),
        )


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of ``systemctl list-jobs``; `state` is ``running`` or ``waiting``."""

    unit: str
    kind: str
    state: str


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """A finished boot.

    :param system_state: ``running``, or ``degraded`` if units failed: for a check to judge;
        ``starting`` where only units without a start limit are left that need the internet.
    :param late_jobs: jobs that were queued again after the boot had finished and did not end, or
        that wait for an internet that is not there.
    """

    system_state: str
    late_jobs: tuple[Job, ...]


def settle(
    transport: Transport,
    *,
    machine: str,
    deadline: Deadline,
    limits: SettleLimits,
    tell: Callable[[BootEventKind, str], None],
    check: Callable[[], None],
    no_way_out: NoWayOut | None = None,
    signs: Signs = _NO_SIGNS,
) -> Settled:
    """Wait until the system is ``running`` or ``degraded`` and no job is queued.

    :param signs: what tells of the boot unasked: until there is a sign of its end looks are rare, and
        what they find decides as ever.
    :param no_way_out: what tells units that need the internet, where the guest has none: a unit
        that would wait for it for ever does not hold up the boot. ``None`` where it has one.
    :param tell: told units that take long, and the end.
    :param check: called between looks; raises if the machine ended or its boot failed.
    :raises BootError: if a unit is stuck, the system goes to emergency mode or down, or time is up.
    :raises TransportError: if the channel broke.
    """
    looks = Looks(signs, check)
    settling = _Settling(transport, machine, limits, tell, check, no_way_out, looks)
    settled = settling.wait(deadline)
    tell(BootEventKind.SETTLED, f"the system is {settled.system_state}")
    return settled


class _Settling:
    def __init__(
        self,
        transport: Transport,
        machine: str,
        limits: SettleLimits,
        tell: Callable[[BootEventKind, str], None],
        check: Callable[[], None],
        no_way_out: NoWayOut | None,
        looks: Looks,
    ) -> None:
        self._transport = transport
        self._machine = machine
        self._limits = limits
        self._tell = tell
        self._check = check
        self._no_way_out = no_way_out
        self._looks = looks
        self._needs: dict[str, InternetNeed] = {}
        self._only_internet = False
        self._units = _RunningUnits()
        self._stillness = Stillness()
        self._named: set[str] = set()
        self._jobs: tuple[Job, ...] = ()
        self._moved_s = time.monotonic()
        self._too_late = False
        self._unanswered: NoAnswerError | None = None
        self._refused = ""

    def wait(self, deadline: Deadline) -> Settled:
        finished: Deadline | None = None
        next_jobs = Deadline.after(min(self._limits.named_after_s, self._limits.stuck_after_s) / 2)
        self._looks.wait_first(deadline)
        while True:
            self._check()
            asked_s = time.monotonic()
            state, jobs = self._look(deadline)
            answered_s = time.monotonic() - asked_s
            if state in _FINISHED:
                finished = finished or Deadline.after(self._limits.late_jobs_s)
                if jobs == 0 or finished.expired:
                    late = () if jobs == 0 else self._list_jobs(deadline)
                    return Settled(system_state=state, late_jobs=late)
            self._refuse(state)
            if next_jobs.expired and finished is None:
                self._watch_jobs(deadline)
                next_jobs = Deadline.after(next_jobs.limit_s)
            if deadline.expired and not self._only_internet:
                raise self._late(deadline, state)
            if self._only_internet:
                return Settled(system_state=state, late_jobs=self._jobs)
            self._looks.wait(
                answered_s,
                stalled=self._stalled,
                finished=finished is not None,
                deadline=deadline,
            )

    def _look(self, deadline: Deadline) -> tuple[str, int]:
        """Read the manager's state; a guest too busy to answer in time is still starting."""
        found = parse_properties(self._ask(_STATE, deadline))
        count = found.get("NJobs", "")
        return found.get("SystemState", ""), int(count) if count.isdigit() else -1

    def _ask(self, command: str, deadline: Deadline) -> str:
        if self._too_late and deadline.expired:
            return ""
        try:
            result = self._transport.run(command, deadline=deadline.within(_COMMAND_LIMIT_S))
        except (CommandTimeout, NoAnswerError) as err:
            # With sixteen neighbours a guest that boots was seen to say nothing for 40 s: the time
            # that the boot has bounds this too, and the check between two looks knows its end.
            self._unanswered = err if isinstance(err, NoAnswerError) else None
            return ""
        self._unanswered = None
        words = (
            result.stderr_text.strip().rpartition("\n")[2] or f"exit status {result.exit_status}"
        )
        self._refused = "" if result.succeeded or result.stdout else words
        return result.stdout_text

    def _list_jobs(self, deadline: Deadline) -> tuple[Job, ...]:
        return parse_jobs(self._ask(_JOBS, deadline))

    def _watch_jobs(self, deadline: Deadline) -> None:
        before, self._jobs = self._jobs, self._list_jobs(deadline)
        if {job.unit for job in before} - {job.unit for job in self._jobs}:
            self._moved_s = time.monotonic()
            self._stillness.forget()
        running = [job for job in self._jobs if job.state == "running"]
        self._units.keep({job.unit for job in running})
        if self._stalled:
            for job in running:
                self._name(job, deadline)
            self._only_internet = bool(running) and all(
                self._waits_for_internet(job, deadline) for job in running
            )
        if len(running) == 1 and not self._only_internet:
            self._judge(running[0], deadline)

    @property
    def _stalled(self) -> bool:
        """Whether no job has ended for a while: a slow machine moves, a stuck one does not."""
        return time.monotonic() - self._moved_s >= self._limits.named_after_s

    def _name(self, job: Job, deadline: Deadline) -> None:
        if job.unit in self._named:
            return
        self._named.add(job.unit)
        limit = self._limit(self._unit(job.unit, deadline))
        self._tell(
            BootEventKind.STUCK_UNIT,
            f"{job.unit} has been in its {job.kind} job for {self._units.since_s(job.unit):.0f} s or more "
            f"({limit or 'no limit'}), {len(self._jobs) - 1} other jobs are queued",
        )

    def _judge(self, job: Job, deadline: Deadline) -> None:
        """Raise if the one running job will not end: without limit, and long enough idle, or
        asking again and again while the whole guest does nothing.
        """
        facts = self._unit(job.unit, deadline)
        idle_s = self._units.idle_s(job.unit, facts.get("CPUUsageNSec", ""))
        still_s = self._stillness.seconds(Activity.parse(self._ask(ACTIVITY, deadline)))
        if self._limit(facts) is not None:
            return
        for seconds, how in (
            (idle_s, "idle and without a start limit"),
            (still_s, "without a start limit, while nothing in the machine worked"),
        ):
            if seconds >= self._limits.stuck_after_s:
                if self._need(job.unit, deadline) is not None:
                    self._only_internet = True
                    return
                why = f"has been in its {job.kind} job for {seconds:.0f} s, {how}"
                raise self._stuck(job.unit, why, deadline)

    def _waits_for_internet(self, job: Job, deadline: Deadline) -> bool:
        """Whether a job says that it waits for the internet and sets itself no limit: then nothing
        is gained by waiting with it.
        """
        if self._no_way_out is None or self._limit(self._unit(job.unit, deadline)) is not None:
            return False
        need = self._need(job.unit, deadline)
        return need is not None and need.said

    def _need(self, unit: str, deadline: Deadline) -> InternetNeed | None:
        if self._no_way_out is None or unit in self._needs:
            return self._needs.get(unit)
        said = last_words(self._ask(last_words_command(unit), deadline))
        need = self._no_way_out.need(unit, UnitStart(active="activating", said=said))
        if need is not None:
            self._needs[unit] = need
            self._tell(BootEventKind.STUCK_UNIT, f"needs the internet, is not waited for: {need}")
        return need

    def _unit(self, unit: str, deadline: Deadline) -> Mapping[str, str]:
        return parse_properties(self._ask(_UNIT + shlex.quote(unit), deadline))

    @staticmethod
    def _limit(facts: Mapping[str, str]) -> str | None:
        """The first finite limit of a unit's start, ``None`` if there is none."""
        limits = (value for key, value in facts.items() if key.endswith("USec"))
        return next(
            (f"limit {value}" for value in limits if value not in ("infinity", "0", "")), None
        )

    def _refuse(self, state: str) -> None:
        if state == "maintenance":
            raise BootError(
                f"{self._machine}: the system went to emergency or rescue mode",
                remedy="look at the console for the unit that failed, often a mount",
                state="emergency mode",
            )
        if state == "stopping":
            raise BootError(
                f"{self._machine}: the system is shutting down during its boot",
                remedy="look for a unit with SuccessAction, FailureAction or a shutdown of its own",
                state="shutting down",
            )

    def _late(self, deadline: Deadline, state: str) -> BootError:
        self._too_late = True
        # What is asked now must not make a boot limit of a minute two: a manager that hangs does
        # not answer anyway.
        grace = Deadline.after(
            min(2 * _COMMAND_LIMIT_S, _GRACE_SHARE * deadline.limit_s + _GRACE_S)
        )
        self._watch_jobs(grace)
        running = [job for job in self._jobs if job.state == "running"]
        if running and self._stalled:
            others = f" beside {', '.join(job.unit for job in running[1:6])}" if running[1:] else ""
            why = f"still runs its {running[0].kind} job after {deadline.limit_s:g} s{others}"
            return self._stuck(running[0].unit, why, grace)
        if self._unanswered is not None and not state:
            return BootError(
                f"{self._machine}: after {deadline.limit_s:g} s no command is answered: "
                f"{self._unanswered.message}",
                remedy="look at the console for what the boot waits for, or raise --nixos-boot-timeout",
                state="not settled",
            )
        if self._refused and not state:
            return BootError(
                f"{self._machine}: after {deadline.limit_s:g} s the guest's systemctl tells nothing: "
                f"{self._refused}",
                remedy="look at the console for why systemd cannot be asked",
                state="not settled",
            )
        busy = f": {', '.join(job.unit for job in running[:6])}" if running else ""
        return BootError(
            f"{self._machine}: the system is still {state or 'silent'} after {deadline.limit_s:g} s, "
            f"{len(self._jobs)} jobs are queued{busy}",
            remedy="raise --nixos-boot-timeout: the boot was still moving"
            if running
            else "look at the console for what the boot waits for, or raise --nixos-boot-timeout",
            state="not settled",
        )

    def _stuck(self, unit: str, why: str, deadline: Deadline) -> BootError:
        name = shlex.quote(unit)
        status = self._ask(_STATUS + name, deadline).splitlines()
        journal = self._ask(_JOURNAL + name, deadline).splitlines()
        waiting = [job.unit for job in self._jobs if job.unit != unit]
        behind = f"\n  waiting behind it: {', '.join(waiting[:8])}" if waiting else ""
        error = BootError(
            f"{self._machine}: {unit} {why}{behind}",
            remedy=f"give {unit} a TimeoutStartSec and look at its journal, or keep it from starting in the VM",
            state="stuck unit",
            console_tail=(*status[:_TAIL], *journal[-_TAIL:]),
        )
        error.detail = "\n".join((*status, *journal))
        return error


class _RunningUnits:
    """Since when units have been seen in a running job, and since when without using a
    processor.
    """

    def __init__(self) -> None:
        self._seen_s: dict[str, float] = {}
        self._idle_since: dict[str, tuple[float, int]] = {}

    def keep(self, units: set[str]) -> None:
        now_s = time.monotonic()
        self._seen_s = {unit: self._seen_s.get(unit, now_s) for unit in units}
        self._idle_since = {u: v for u, v in self._idle_since.items() if u in units}

    def since_s(self, unit: str) -> float:
        """Seconds for which `unit` has been seen in a running job."""
        return time.monotonic() - self._seen_s[unit]

    def idle_s(self, unit: str, cpu_usage_ns: str) -> float:
        """Seconds for which `unit` has been idle, by its processor time so far (``[not set]`` is
        none).
        """
        now_s, used = time.monotonic(), int(cpu_usage_ns) if cpu_usage_ns.isdigit() else 0
        since_s, used_then = self._idle_since.setdefault(unit, (now_s, used))
        if used - used_then > _IDLE_SHARE * max(now_s - since_s, 1.0) * 1e9:
            self._idle_since[unit] = (now_s, used)
            return 0.0
        return now_s - since_s


def parse_properties(text: str) -> dict[str, str]:
    """Read ``Key=value`` lines of ``systemctl show``."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key: value for key, _, value in pairs}


def parse_jobs(text: str) -> tuple[Job, ...]:
    """Read ``JOB UNIT TYPE STATE`` lines of ``systemctl list-jobs --no-legend``."""
    rows = (line.split() for line in text.splitlines())
    return tuple(
        Job(unit=row[1], kind=row[2], state=row[3])
        for row in rows
        if len(row) == 4 and row[0].isdigit()
    )
