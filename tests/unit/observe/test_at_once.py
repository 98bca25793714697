"""Probes of one trip run on all processors, and each keeps its own answer."""

from __future__ import annotations

import os

import pytest

from pytest_nixos.errors import TransportError
from pytest_nixos.observe import at_once as module
from pytest_nixos.observe.base import Probe, ProbeOutput, collect
from tests.unit.observe.here import here

MANY = 12
at_least_two_processors = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor")


def probe(name: str, script: str) -> Probe[tuple[int, bytes]]:
    return Probe(name=name, script=script, parse=lambda out: (out.exit_status, out.stdout))


def many(script: str) -> list[Probe[tuple[int, bytes]]]:
    return [probe(f"p{i}", f"{script.replace('@', str(i))} # {i}") for i in range(MANY)]


@pytest.fixture(params=[1, 4], ids=["one by one", "at once"])
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(module, "_MOST_WORKERS", request.param)
    return int(request.param)


@pytest.mark.usefixtures("workers")
def test_answers_stay_apart_however_long() -> None:
    asked = many("head -c 300000 /dev/zero | tr '\\0' '@'; printf '\\n\\0x'; exit @")
    outputs = collect(here, asked)
    for i in range(MANY):
        wanted = f"{i}".encode()[-1:] if i < 10 else f"{i}".encode()[:1]
        assert outputs[f"p{i}"].exit_status == i
        assert outputs[f"p{i}"].stdout == wanted * 300000 + b"\n\0x"


@pytest.mark.usefixtures("workers")
def test_a_probe_that_is_killed_or_leaves_takes_no_other_along() -> None:
    asked = many("echo @")
    asked[2] = probe("p2", "kill -9 $BASHPID")
    asked[3] = probe("p3", "exec false")
    asked[4] = probe("p4", "cd /; unset pn_mark pn_queue; shopt -s nullglob; x=1; title t")
    outputs = collect(here, asked)
    assert outputs["p2"] == ProbeOutput(stdout=b"", exit_status=137)
    assert outputs["p3"] == ProbeOutput(stdout=b"", exit_status=1)
    assert [outputs[f"p{i}"].text for i in (0, 1, 5, 11)] == ["0\n", "1\n", "5\n", "11\n"]


@pytest.mark.usefixtures("workers")
def test_titles_are_read_of_each() -> None:
    outputs = collect(here, many("title a @; echo one; title b; echo two; echo 'x=a'"))
    assert outputs["p7"].records == [("a 7", "one\n"), ("b", "two\nx=a\n")]


@at_least_two_processors
def test_two_run_at_once() -> None:
    # Each of the two waits for what the other one does.
    asked = many("true")
    pipe = "/tmp/pn-test-$PPID-$$"
    asked[0] = probe("p0", f"mkfifo {pipe}; read -r -t 10 line <{pipe}; rm {pipe}; echo got $line")
    asked[1] = probe("p1", f"until [ -p {pipe} ]; do :; done; echo hello >{pipe}")
    assert collect(here, asked)["p0"].text == "got hello\n"


@pytest.mark.usefixtures("workers")
def test_no_probe_holds_what_others_print() -> None:
    # Their own output is 1; descriptors of workers are not theirs.
    outputs = collect(here, many("ls -l /proc/self/fd; sleep 0.02"))
    for i in range(MANY):
        lines = [line for line in outputs[f"p{i}"].text.splitlines() if "->" in line]
        numbers = {int(line.split(" -> ")[0].split()[-1]) for line in lines}
        assert numbers <= {0, 1, 2, 3}, lines  # 3: ls reads the directory


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("place", [">/dev/stdout", ">>/dev/stdout", ">/proc/self/fd/1"])
def test_a_probe_that_opens_its_output_by_name_harms_no_other(place: str) -> None:
    asked = many("echo @")
    asked[6] = probe("p6", f"echo 6 {place}; echo six")
    outputs = collect(here, asked)
    assert [outputs[f"p{i}"].text for i in (0, 5, 7, 11)] == ["0\n", "5\n", "7\n", "11\n"]
    assert outputs["p6"].text == "6\nsix\n"


def test_a_shell_that_dies_is_told() -> None:
    asked = many("echo @")
    asked[6] = probe("p6", "kill -9 $$; sleep 0.2")
    with pytest.raises(TransportError, match="ends early"):
        collect(here, asked)


def test_more_probes_than_names_are_read_all_the_same() -> None:
    outputs = collect(here, [probe(f"p{i}", f"echo {i}") for i in range(100)])
    assert outputs["p99"].text == "99\n"


def test_the_shells_of_a_guest_keep_their_settings() -> None:
    script = module.at_once([f"echo {i} ${{BASH_COMPAT-no}} ${{TMPDIR-no}}" for i in range(MANY)])
    lines = here(f"unset BASH_COMPAT TMPDIR; {script}").stdout_text.splitlines()
    assert sorted(lines) == sorted(f"{i} no no" for i in range(MANY))
