"""What all backends share: an end that is explained once, and nothing left of a machine that did
not start.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from pytest_nixos.errors import BootError, MachineError, TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.boot.events import ignore_boot_event
from pytest_nixos.machine.boot.news import BootNews
from pytest_nixos.machine.boot.remedies import Remedies
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.machine.console import Trouble
from pytest_nixos.machine.lifetime import Lifetime

ADVICE = Remedies(
    by_kind={"engine was killed": "find the killer", "kernel panic": "read the panic"},
    by_words=(("no spoon", "bend it"),),
    default="read on",
)


class Process:
    end_words = "with exit status 3"
    end_kind = "ended"

    def __init__(self) -> None:
        self.has_ended = False

    def wait_ended(self, _limit_s: float) -> bool:
        return self.has_ended


class Broken:
    """A channel that breaks at the first command."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self._before = before

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        self._before()
        raise TransportError("the pipe broke", remedy="look at the pipe")

    def close(self) -> None:
        pass


@pytest.fixture
def life() -> Lifetime:
    news = BootNews("web", ignore_boot_event)
    return Lifetime(
        "web", news, program="engine", remedies=ADVICE, deadly=frozenset({"kernel panic"})
    )


@pytest.fixture
def process(life: Lifetime) -> Process:
    process = Process()
    life.follow(process)
    return process


def test_an_end_during_the_boot_is_a_boot_error(life: Lifetime, process: Process) -> None:
    life.check()
    life.console.append("there is no spoon")
    process.has_ended = True
    with pytest.raises(BootError, match="web: engine ended with exit status 3") as caught:
        life.check()
    assert caught.value.remedy == "bend it"
    assert caught.value.console_tail == ("there is no spoon",)


def test_a_later_end_is_told_instead_of_a_broken_channel(life: Lifetime, process: Process) -> None:
    def die() -> None:
        process.end_kind, process.end_words = "was killed", "by signal 9"
        process.has_ended = True

    life.has_come_up = True
    channel = life.explain(Broken(before=die))
    with pytest.raises(TransportError, match="web: engine ended by signal 9") as caught:
        channel.run("true", deadline=Deadline.after(1))
    assert caught.value.remedy == "find the killer"


@pytest.mark.usefixtures("process")
def test_a_channel_that_broke_by_itself_stays_the_error(life: Lifetime) -> None:
    life.has_come_up = True
    with pytest.raises(TransportError, match="the pipe broke"):
        life.explain(Broken()).run("true", deadline=Deadline.after(1))


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize(("kind", "deadly"), [("kernel panic", True), ("emergency mode", False)])
def test_only_deadly_trouble_ends_what_had_come_up(life: Lifetime, kind: str, deadly: bool) -> None:
    life.has_come_up = True
    life.console.record(Trouble(kind=kind, text="x", fatal=True))
    gone = life.obituary()
    assert (gone is not None) is deadly
    assert gone is None or "the machine broke (kernel panic: x)" in gone.message


def test_an_end_that_the_process_shows_later_counts(life: Lifetime) -> None:
    life.follow(Process(), is_gone=lambda: True)
    life.has_come_up = True
    assert life.obituary() is not None


@pytest.mark.usefixtures("process")
def test_a_channel_that_breaks_during_the_boot_is_explained(life: Lifetime) -> None:
    def connect(limit_s: float) -> None:
        deadline = Deadline.after(limit_s)
        with life.explained(deadline, "no answer"):
            time.sleep(0.01)
            Broken().run("true", deadline=deadline)

    with pytest.raises(BootError, match="web: no answer: the pipe broke"):
        connect(60)
    with pytest.raises(BootError, match=r"web: no answer after 0\.001 s"):
        connect(0.001)


def test_nothing_is_left_of_what_did_not_start(life: Lifetime) -> None:
    undone: list[str] = []
    life.undo.callback(undone.append, "first")
    life.undo.callback(undone.append, "last")

    def start() -> None:
        with life.stopped_on_error():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start()
    assert undone == ["last", "first"]
    life.stop()
    assert undone == ["last", "first"]


def test_stopping_never_raises(life: Lifetime) -> None:
    def fail() -> None:
        raise OSError("no such cgroup")

    life.undo.callback(fail)
    life.stop()
    assert life.console.tail() == ("pytest-nixos: while stopping web: no such cgroup",)


@pytest.mark.usefixtures("process")
def test_a_machine_that_does_not_go_off_is_told(life: Lifetime) -> None:
    with pytest.raises(MachineError, match=r"still runs 0\.1 s after it was told to shut down"):
        life.shut_down(Broken(), deadline=Deadline.after(0.1))
