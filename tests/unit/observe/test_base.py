"""Many probes in one round trip, and what is kept of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos.errors import TransportError
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.observe.base import Probe, ProbeOutput, collect, observe
from pytest_nixos.observe.store import Observations
from tests.unit.observe.here import here


def probe(name: str, script: str) -> Probe[tuple[int, bytes]]:
    return Probe(name=name, script=script, parse=lambda out: (out.exit_status, out.stdout))


class Asked:
    """A machine that is this one, and counts."""

    def __init__(self) -> None:
        self.epoch = 1
        self.commands: list[str] = []

    def run(self, command: str, *, timeout_s: float = 0, stdin: bytes = b"") -> CommandResult:
        self.commands.append(command)
        return here(command)


def test_outputs_and_exit_statuses_stay_apart() -> None:
    outputs = collect(
        here,
        [
            probe("binary", r"printf 'a\0\n\n--\n'; echo lost >&2; exit 3"),
            probe("stdin", "cat; cd /; x=1; exec true"),
            probe("comment", "echo kept # to the end"),
            probe("last", 'echo "${x-unset}"'),
        ],
    )
    assert outputs["binary"] == ProbeOutput(stdout=b"a\0\n\n--\n", exit_status=3)
    assert outputs["stdin"] == ProbeOutput(stdout=b"", exit_status=0)
    assert outputs["comment"].text == "kept\n"
    assert outputs["last"].text == "unset\n"


def test_what_two_probes_ask_in_the_same_words_is_run_once(tmp_path: Path) -> None:
    script = f"echo once >>{tmp_path}/ran; cat {tmp_path}/ran"
    outputs = collect(here, [probe("a", script), probe("other", "echo 2"), probe("b", script)])
    assert outputs["a"].text == outputs["b"].text == "once\n"
    assert outputs["other"].text == "2\n"


def test_an_answer_that_ends_early_names_the_probe() -> None:
    with pytest.raises(TransportError, match="probe second"):
        collect(here, [probe("first", "true"), probe("second", "kill -9 $$")])


def test_two_probes_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="one name"):
        collect(here, [probe("a", "echo 1"), probe("a", "echo 2")])


def test_one_probe() -> None:
    assert observe(here, probe("a", "printf x; exit 1")) == (1, b"x")


def test_observations_are_read_once_an_epoch() -> None:
    machine = Asked()
    kept = Observations(machine)
    first = probe("a", "printf %s $RANDOM$RANDOM")
    assert kept.of(first) == kept.of(probe("a", first.script))
    assert len(machine.commands) == 1
    before = kept.of(first)
    machine.epoch = 2
    assert kept.of(first) != before
    assert len(machine.commands) == 2


def test_two_questions_of_one_kind_keep_their_own_answers() -> None:
    machine = Asked()
    kept = Observations(machine)
    one, two = probe("unit", "printf 1"), probe("unit", "printf 2")
    kept.prefetch([one, two, one])
    assert len(machine.commands) == 1
    assert (kept.of(one), kept.of(two)) == ((0, b"1"), (0, b"2"))
    assert len(machine.commands) == 1
