"""Settling: told by a guest of the test's own that answers systemctl."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence

import pytest

from pytest_nixos.errors import (
    BootError,
    CommandTimeout,
    MachineError,
    NoAnswerError,
    TransportError,
)
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.boot import looks as looks_module
from pytest_nixos.machine.boot import settle as settle_module
from pytest_nixos.machine.boot.events import BootEventKind
from pytest_nixos.machine.boot.internet import NoWayOut
from pytest_nixos.machine.boot.looks import Signs
from pytest_nixos.machine.boot.settle import (
    Job,
    Settled,
    SettleLimits,
    parse_jobs,
    parse_properties,
    settle,
)
from pytest_nixos.machine.command import CommandResult

_NO_SIGNS = Signs()
SLOW = SettleLimits(named_after_s=0.04, stuck_after_s=0.3, late_jobs_s=0.1)
UNLIMITED = "TimeoutStartUSec=infinity\nJobTimeoutUSec=infinity\nCPUUsageNSec=1000\n"
LIMITED = "TimeoutStartUSec=1min 30s\nJobTimeoutUSec=infinity\nCPUUsageNSec=1000\n"
ONE_JOB = "93 never.service start running\n94 multi-user.target start waiting\n"
TWO_JOBS = "93 never.service start running\n95 b.service start running\n"


class Guest:
    """Answers the commands of settling; `states` one a look, the last one for ever."""

    def __init__(
        self, states: Sequence[tuple[str, int]], *, jobs: str = "", unit: str = UNLIMITED
    ) -> None:
        self.states = list(states)
        self.jobs = jobs
        self.unit = unit
        self.busy_looks = 0
        self.commands: list[str] = []
        self.cpu_ns: int | None = None
        self.idle_share: float | None = None
        self.ticks = 0
        self.said = ""

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        self.commands.append(command)
        return CommandResult(
            command=command,
            exit_status=0,
            stdout=self._answer(command).encode(),
            stderr=b"",
            duration_s=0.0,
        )

    def close(self) -> None:
        pass

    def _answer(self, command: str) -> str:
        if "SystemState" in command:
            if self.busy_looks > 0:
                self.busy_looks -= 1
                raise CommandTimeout("busy", remedy="")
            state, count = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            return f"NJobs={count}\nSystemState={state}\n"
        if "list-jobs" in command:
            return self.jobs
        if "/proc/stat" in command:
            if self.idle_share is None:
                return ""
            self.ticks += 1000
            idle = int(self.ticks * self.idle_share)
            return f"cpu  {self.ticks - idle} 0 0 {idle} 0 0 0 0 0 0\n"
        if "CPUUsageNSec" in command:
            if self.cpu_ns is not None:
                self.cpu_ns += 10**9
                return self.unit.replace("CPUUsageNSec=1000", f"CPUUsageNSec={self.cpu_ns}")
            return self.unit
        if "--output=json" in command:
            return json.dumps({"_PID": "7", "_SYSTEMD_INVOCATION_ID": "a", "MESSAGE": self.said})
        if "journalctl" in command:
            return "[ 1.0] vm systemd[1]: Starting never.service\n"
        return "● never.service - Never\n     Active: activating (start)\n"


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks_module, "_INTERVAL_S", 0.01)
    monkeypatch.setattr(looks_module, "_STALLED_INTERVAL_S", 0.02)
    monkeypatch.setattr(looks_module, "_FIRST_S", 0.0)


def run(
    guest: Guest,
    *,
    limit_s: float = 3.0,
    limits: SettleLimits = SLOW,
    told: list[tuple[BootEventKind, str]] | None = None,
    check: Callable[[], None] = lambda: None,
    no_way_out: NoWayOut | None = None,
    signs: Signs = _NO_SIGNS,
) -> Settled:
    news: list[tuple[BootEventKind, str]] = [] if told is None else told
    return settle(
        guest,
        machine="llm-host",
        deadline=Deadline.after(limit_s),
        limits=limits,
        tell=lambda kind, text: news.append((kind, text)),
        check=check,
        no_way_out=no_way_out,
        signs=signs,
    )


@pytest.mark.parametrize("state", ["running", "degraded"])
def test_failed_units_are_for_a_check_to_judge(state: str) -> None:
    told: list[tuple[BootEventKind, str]] = []
    guest = Guest([("initializing", 9), ("starting", 3), (state, 0)])
    assert run(guest, told=told) == Settled(system_state=state, late_jobs=())
    assert told == [(BootEventKind.SETTLED, f"the system is {state}")]


def test_the_end_of_a_quick_boot_is_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks_module, "_INTERVAL_S", 5.0)
    begun_s = time.monotonic()
    run(Guest([("initializing", 9)] * 4 + [("running", 0)]), limit_s=30.0)
    assert time.monotonic() - begun_s < 1.0


class SlowGuest(Guest):
    """It takes a while to answer, and has booted after so many seconds."""

    def __init__(self, boots_s: float) -> None:
        super().__init__([("running", 0)])
        self.boots_at_s = time.monotonic() + boots_s

    @property
    def has_booted(self) -> bool:
        return time.monotonic() >= self.boots_at_s

    def _answer(self, command: str) -> str:
        time.sleep(0.02)
        return super()._answer(command) if self.has_booted else "NJobs=9\nSystemState=starting\n"


def test_an_emulated_guest_is_seldom_asked_while_it_boots() -> None:
    guest = SlowGuest(boots_s=1.0)
    run(guest, limits=SettleLimits())
    assert len(guest.commands) <= 3


def test_a_sign_has_the_boots_end_seen_at_once() -> None:
    guest = SlowGuest(boots_s=0.3)
    begun_s = time.monotonic()
    run(guest, limits=SettleLimits(), limit_s=30.0, signs=Signs(has_ended=lambda: guest.has_booted))
    assert time.monotonic() - begun_s < 0.5


def test_a_guest_that_tells_its_boots_end_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks_module, "_FIRST_S", 20.0)
    guest = SlowGuest(boots_s=0.3)
    run(guest, limits=SettleLimits(), limit_s=30.0, signs=Signs(has_ended=lambda: guest.has_booted))
    assert len(guest.commands) == 1


def test_a_guest_whose_console_tells_of_steps_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(looks_module, "_FIRST_S", 0.2)
    guest = SlowGuest(boots_s=0.5)
    told = lambda: math.inf if guest.has_booted else 0.0  # noqa: E731 - a name for what it tells
    run(guest, limits=SettleLimits(), limit_s=30.0, signs=Signs(still_s=told))
    assert len(guest.commands) == 1


def test_a_console_that_never_falls_silent_hides_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks_module, "_FIRST_S", 0.05)
    begun_s = time.monotonic()
    run(
        SlowGuest(boots_s=0.0),
        limits=SettleLimits(),
        limit_s=30.0,
        signs=Signs(still_s=lambda: 0.0),
    )
    assert time.monotonic() - begun_s < 1.0


def test_a_sign_is_no_proof() -> None:
    guest = SlowGuest(boots_s=0.3)
    run(guest, limits=SettleLimits(), limit_s=30.0, signs=Signs(has_ended=lambda: True))
    assert guest.has_booted


def test_a_machine_that_ends_between_two_looks_is_told_at_once() -> None:
    guest = SlowGuest(boots_s=5.0)
    ended_at_s = time.monotonic() + 0.2

    def check() -> None:
        if time.monotonic() >= ended_at_s:
            raise MachineError("gone", remedy="")

    with pytest.raises(MachineError, match="gone"):
        run(guest, limits=SettleLimits(), limit_s=30.0, check=check)
    assert time.monotonic() - ended_at_s < 0.3


def test_a_running_system_with_jobs_has_not_settled() -> None:
    guest = Guest([("running", 2), ("running", 1), ("running", 0)])
    run(guest)
    assert sum("SystemState" in command for command in guest.commands) == 3


def test_jobs_that_come_after_the_boot_do_not_hold_it_up_for_ever() -> None:
    settled = run(Guest([("running", 1)], jobs=ONE_JOB))
    assert settled.late_jobs[0] == Job(unit="never.service", kind="start", state="running")


def test_a_guest_that_says_nothing_for_a_while_is_not_a_broken_one() -> None:
    class Silent(Guest):
        def _answer(self, command: str) -> str:
            if self.busy_looks > 0:
                self.busy_looks -= 1
                raise NoAnswerError("the guest does not answer (limit 30 s): hung?", remedy="")
            return super()._answer(command)

    guest = Silent([("running", 0)])
    guest.busy_looks = 3
    assert run(guest).system_state == "running"


def test_a_unit_that_asks_for_ever_is_stuck_where_nothing_else_works() -> None:
    """It uses its processor a little all the time: the whole guest tells."""
    guest = Guest([("starting", 2)], jobs=ONE_JOB)
    guest.cpu_ns, guest.idle_share = 0, 0.95
    with pytest.raises(BootError, match="while nothing in the machine worked") as caught:
        run(guest, limit_s=30)
    assert caught.value.state == "stuck unit"


def test_a_unit_that_works_on_a_slow_machine_is_not_stuck() -> None:
    guest = Guest([("starting", 2)], jobs=ONE_JOB)
    guest.cpu_ns, guest.idle_share = 0, 0.5
    with pytest.raises(BootError, match=r"still runs its start job after 0\.7 s"):
        run(guest, limit_s=0.7)


def test_a_busy_guest_is_not_a_broken_one() -> None:
    guest = Guest([("running", 0)])
    guest.busy_looks = 3
    assert run(guest).system_state == "running"


def test_a_unit_that_holds_up_the_boot_is_named_and_then_fails_it() -> None:
    told: list[tuple[BootEventKind, str]] = []
    with pytest.raises(BootError) as caught:
        run(Guest([("starting", 2)], jobs=ONE_JOB), told=told)
    error = caught.value
    assert error.state == "stuck unit"
    assert "llm-host: never.service has been in its start job for" in error.message
    assert "idle and without a start limit\n  waiting behind it: multi-user.target" in error.message
    assert error.console_tail[-1] == "[ 1.0] vm systemd[1]: Starting never.service"
    assert "Active: activating" in error.detail
    assert [kind for kind, _ in told] == [BootEventKind.STUCK_UNIT]
    assert "(no limit), 1 other jobs are queued" in told[0][1]


@pytest.mark.parametrize(
    ("jobs", "unit", "works"),
    [(ONE_JOB, LIMITED, False), (TWO_JOBS, UNLIMITED, False), (ONE_JOB, UNLIMITED, True)],
    ids=["limited", "two running", "busy"],
)
def test_a_unit_that_may_still_end_is_given_the_whole_time(
    jobs: str, unit: str, *, works: bool
) -> None:
    guest = Guest([("starting", 2)], jobs=jobs, unit=unit)
    guest.cpu_ns = 0 if works else None
    with pytest.raises(BootError, match=r"still runs its start job after 0\.7 s") as caught:
        run(guest, limit_s=0.7)
    assert caught.value.state == "stuck unit"


def test_a_silent_system_is_told_at_the_deadline() -> None:
    with pytest.raises(BootError, match=r"still starting after 0\.1 s") as caught:
        run(Guest([("starting", 1)]), limit_s=0.1)
    assert "--nixos-boot-timeout" in caught.value.remedy


@pytest.mark.parametrize(
    ("state", "named"), [("maintenance", "emergency mode"), ("stopping", "shutting down")]
)
def test_a_boot_that_went_elsewhere_fails_at_once(state: str, named: str) -> None:
    with pytest.raises(BootError) as caught:
        run(Guest([("starting", 1), (state, 0)]))
    assert caught.value.state == named


def test_the_machines_own_end_comes_first() -> None:
    def check() -> None:
        raise MachineError("gone", remedy="")

    with pytest.raises(MachineError, match="gone"):
        run(Guest([("starting", 1)]), check=check)


def test_a_broken_channel_is_not_hidden() -> None:
    class Broken(Guest):
        def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
            raise TransportError("pipe", remedy="")

    with pytest.raises(TransportError, match="pipe"):
        run(Broken([("starting", 1)]))


def test_a_slow_boot_that_moves_is_not_called_stuck() -> None:
    class Moving(Guest):
        count = 0

        def _answer(self, command: str) -> str:
            if "list-jobs" in command:
                self.count += 1
                return f"{self.count} unit-{self.count}.service start running\n"
            return super()._answer(command)

    told: list[tuple[BootEventKind, str]] = []
    with pytest.raises(BootError, match=r"1 jobs are queued: unit-\d+\.service") as caught:
        run(Moving([("starting", 1)]), limit_s=0.5, told=told)
    assert caught.value.state == "not settled"
    assert "the boot was still moving" in caught.value.remedy
    assert told == []


def test_unit_names_are_quoted() -> None:
    guest = Guest([("starting", 1)], jobs="1 a;reboot.service start running\n")
    with pytest.raises(BootError):
        run(guest, limit_s=0.2)
    assert all("'a;reboot.service'" in c for c in guest.commands if "a;reboot" in c)
    assert any("a;reboot" in c for c in guest.commands)


def test_answers_are_read_and_nonsense_is_left_out() -> None:
    assert parse_properties("A=1\nnonsense\nB=x=y\n") == {"A": "1", "B": "x=y"}
    assert parse_jobs("No jobs running.\n\n  7 a.service stop waiting\n") == (
        Job(unit="a.service", kind="stop", state="waiting"),
    )


class HangingGuest(Guest):
    """Its manager answers nothing, and every question takes as long as it may."""

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        time.sleep(deadline.remaining_s)
        raise CommandTimeout("systemctl hangs", remedy="")


def test_a_manager_that_hangs_does_not_double_the_boot_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settle_module, "_GRACE_S", 0.5)
    started_s = time.monotonic()
    with pytest.raises(BootError, match="the system is still silent after 1 s"):
        run(HangingGuest([("starting", 1)]), limit_s=1.0)
    assert time.monotonic() - started_s < 5


class DeafGuest(Guest):
    """It answers no command at all."""

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        time.sleep(deadline.remaining_s)
        raise NoAnswerError(f"{command.split(maxsplit=1)[0]}: the guest does not answer", remedy="")


def test_a_guest_that_answers_no_command_is_told_from_a_silent_manager() -> None:
    with pytest.raises(BootError, match="after 1 s no command is answered: timeout: the guest"):
        run(DeafGuest([("starting", 1)]), limit_s=1.0)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"Failed to connect to system scope bus: No such file", "scope bus: No such file"),
        (b"", "exit status 1"),
    ],
)
def test_what_systemctl_says_in_place_of_an_answer_is_told(said: bytes, told: str) -> None:
    class Refusing(Guest):
        def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
            return CommandResult(
                command=command, exit_status=1, stdout=b"", stderr=said, duration_s=0.0
            )

    with pytest.raises(BootError, match=f"systemctl tells nothing: .*{told}"):
        run(Refusing([("starting", 1)]), limit_s=0.2)


NO_INTERNET = "curl: (6) Could not resolve host: registry.example.org"


@pytest.mark.parametrize("jobs", [ONE_JOB, TWO_JOBS])
def test_what_waits_for_the_internet_for_ever_does_not_hold_up_the_boot(jobs: str) -> None:
    told: list[tuple[BootEventKind, str]] = []
    guest = Guest([("starting", 2)], jobs=jobs)
    guest.said = NO_INTERNET

    settled = run(guest, told=told, no_way_out=NoWayOut())

    assert settled.system_state == "starting"
    assert "never.service" in [job.unit for job in settled.late_jobs]
    assert any("needs the internet" in t and "registry.example.org" in t for _, t in told)


def test_what_sets_itself_a_limit_is_waited_for_as_at_home() -> None:
    guest = Guest([("starting", 2)], jobs=ONE_JOB, unit=LIMITED)
    guest.said = NO_INTERNET
    with pytest.raises(BootError, match="still runs its start job"):
        run(guest, limit_s=0.5, no_way_out=NoWayOut())


@pytest.mark.parametrize(
    ("said", "no_way_out"),
    [("permission denied", NoWayOut()), ("", NoWayOut()), (NO_INTERNET, None)],
)
def test_another_unit_that_never_ends_still_fails_the_boot(
    said: str, no_way_out: NoWayOut | None
) -> None:
    guest = Guest([("starting", 2)], jobs=ONE_JOB)
    guest.said = said
    with pytest.raises(BootError) as caught:
        run(guest, no_way_out=no_way_out)
    assert caught.value.state == "stuck unit"


def test_a_kind_that_hangs_without_a_word_is_given_its_time() -> None:
    guest = Guest([("starting", 2)], jobs=ONE_JOB.replace("never", "podman-web"))
    began_s = time.monotonic()
    assert run(guest, no_way_out=NoWayOut()).system_state == "starting"
    assert time.monotonic() - began_s >= SLOW.stuck_after_s
