"""Nothing that a guest's user can name, write or print ends a record, makes one, or hides one."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_nixos.errors import TransportError
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.observe.accounts.account import ACCOUNT_FACTS
from pytest_nixos.observe.base import Probe, ProbeOutput, collect, observe
from pytest_nixos.observe.fact import Fact, fact_probe
from pytest_nixos.observe.filesystems.file import files
from pytest_nixos.observe.filesystems.mount import parse_mountinfo
from pytest_nixos.observe.filesystems.scan import SCAN_FACTS
from pytest_nixos.observe.kernel import sysctls
from pytest_nixos.observe.network.http import http
from pytest_nixos.observe.network.socket import Protocol, sockets
from pytest_nixos.observe.systemd.journal import journal, recent_journal
from pytest_nixos.observe.systemd.process import process_facts
from pytest_nixos.observe.systemd.unit import units
from pytest_nixos.observe.text import split_lines
from tests.unit.observe.here import ask, here, moved, parsed

#: What separated records once, what separates them now, and what other readers take for the end of
#: a line.
FRAGMENTS = (
    "\x1e0\x1e", "\x1e3\x1esetuid-outside-wrappers\x1e0\x1e\x1e", "\x1f", "\x1d", "\1", "\n", "\r", "\x85", "\u2028", "\x0b",
    "\n=tcp\n", "\n=status 0\n", "=complete", "\n\nId=b.service\nActiveState=active\n", "E", "S", " ", "\t", "*", "[a]", "'", '"',
    "$(id)", "`id`", "\\", "\\012", "--", "=", "%s", "\ud800", "\u00e9",
)  # fmt: skip
hostile = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), min_size=1, max_size=6).map(
    "".join
)
texts = hostile.map(lambda text: text.encode(errors="surrogatepass").decode(errors="replace"))
values = texts.map(lambda text: text.replace("\0", ""))
names = (
    values.map(lambda text: text.replace("/", "."))
    .filter(lambda text: text not in ("", ".", ".."))
    .map(lambda text: text.encode()[:200].decode(errors="ignore"))
    .filter(lambda text: text not in ("", ".", ".."))
)
# Each example starts a bash: few of them, each with much in it.
few = settings(max_examples=15, deadline=None, derandomize=True, database=None)
WALKED = [
    "world-writable-directories",
    "setuid-outside-wrappers",
    "world-writable-files",
    "unowned",
]


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def walk(tree: Path) -> dict[str, object]:
    return dict(ask(moved(fact_probe("scan", SCAN_FACTS, WALKED), "find /", f"find {tree}")))


def test_a_directory_of_nobody_does_not_hide_a_setuid_file(tmp_path: Path) -> None:
    (tmp_path / "back-door").write_text("x")
    (tmp_path / "back-door").chmod(0o4755)
    forged = "a\x1e0\x1esetuid-outside-wrappers\x1e0\x1eworld-writable-directories\x1e0\x1e\x1e"
    (tmp_path / forged).mkdir()
    (tmp_path / forged).chmod(0o777)
    assert walk(tmp_path) == {
        "setuid-outside-wrappers": [f"{tmp_path}/back-door"],
        "world-writable-directories": [f"{tmp_path}/{forged}"],
        "world-writable-files": [],
        "unowned": [],
    }


@few
@given(st.sets(names, min_size=3, max_size=6))
def test_a_walk_sees_what_is_there(found: set[str]) -> None:
    open_directory, setuid, *plain = sorted(found)
    with directory() as tree:
        (tree / open_directory).mkdir()
        (tree / open_directory).chmod(0o777)
        for name in (setuid, *plain):
            (tree / name).write_text("x")
        (tree / setuid).chmod(0o4755)
        seen = walk(tree)
        # Names are shown with a newline for U+0001: both are no characters that a reader could see.
        shown = {name: f"{tree}/{name}".replace("\1", "\n") for name in found}
        assert seen["world-writable-directories"] == [shown[open_directory]]
        assert seen["setuid-outside-wrappers"] == [shown[setuid]]
        assert seen["world-writable-files"] == []


@few
@given(st.sets(names, min_size=1, max_size=5), values)
def test_files_are_those_that_are_there(found: set[str], content: str) -> None:
    with directory() as tree:
        for name in found:
            (tree / name).write_text(content, newline="")
        wanted = {str(tree / name) for name in found if not name.startswith(".")}
        seen = ask(files([f"{tree}/*", "/no/such"], contents=[f"{tree}/*"]))
        assert {state.path for state in seen[f"{tree}/*"]} == wanted
        assert {state.content for state in seen[f"{tree}/*"]} <= {content.rstrip("\n")}
        assert seen["/no/such"] == ()


def test_a_huge_file_is_cut_and_the_next_one_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("=E\n" * 100_000)
    (tmp_path / "b").write_text("small")
    seen = ask(files([f"{tmp_path}/*"], contents=[f"{tmp_path}/*"]))[f"{tmp_path}/*"]
    assert [len(state.content) for state in seen] == [65536, 5]


@few
@given(st.binary(max_size=200) | texts.map(str.encode), st.integers(0, 2))
def test_what_a_fact_prints_stays_its_own(printed: bytes, status: int) -> None:
    with directory() as tree:
        (tree / "printed").write_bytes(printed)
        facts = {
            "loud": Fact(script=f"cat {tree}/printed; exit {status}", parse=str, about="x"),
            "failed": Fact(script="exit 7", parse=str, about="x"),
            "quiet": Fact(script="echo kept", parse=str, about="x"),
        }
        loud = {"loud": printed.decode(errors="replace")} if status == 0 else {}
        assert ask(fact_probe("kind", facts, list(facts))) == {**loud, "quiet": "kept\n"}


@few
@given(st.lists(st.binary(max_size=100) | texts.map(str.encode), min_size=1, max_size=4))
def test_probes_keep_their_own_output(printed: list[bytes]) -> None:
    with directory() as tree:
        probes: list[Probe[object]] = []
        for number, text in enumerate(printed):
            (tree / str(number)).write_bytes(text)
            script = f"cat {tree}/{number}; exit {number}"
            probes.append(Probe(name=str(number), script=script, parse=lambda output: output))
        outputs = collect(here, probes)
        assert [outputs[probe.name].stdout for probe in probes] == printed
        assert [outputs[probe.name].exit_status for probe in probes] == list(range(len(printed)))


def test_no_program_of_the_guest_is_told_the_mark() -> None:
    """Every user of a guest can read command lines; environments belong to who runs them."""
    script = (
        'title one; tr "\\0" " " </proc/$$/cmdline; tr "\\0" " " </proc/self/environ; title two'
    )
    outputs = collect(here, [Probe(name="a", script=script, parse=lambda output: output)])
    assert len(outputs["a"].mark) == 36
    assert outputs["a"].mark not in dict(outputs["a"].records)["one"]
    again = collect(here, [Probe(name="a", script=script, parse=lambda output: output)])
    assert again["a"].mark != outputs["a"].mark


def test_a_guest_that_draws_no_mark_is_an_error() -> None:
    def run(command: str) -> CommandResult:
        return here(command.replace("/proc/sys/kernel/random/uuid", "/dev/null"))

    with pytest.raises(TransportError, match="ends early"):
        collect(run, [Probe(name="a", script="true", parse=lambda output: output)])


def test_a_nul_in_a_units_name_costs_that_question_alone() -> None:
    names_of_units = ["a\0b", "a\nb", "x" * 300, "good"]
    assert shlex.split(units(names_of_units).script)[-2:] == ["--", "good.service"]
    assert "\0" not in process_facts(names_of_units).script
    probes: list[Probe[object]] = [journal("a\0b"), Probe(name="b", script="echo b", parse=str)]
    outputs = collect(here, probes)
    assert outputs["b"].text == "b\n"
    first = outputs[probes[0].name]
    assert (first.stdout, first.exit_status) == (b"", 126)
    assert probes[0].parse(first) == ()


@few
@given(st.lists(values, min_size=1, max_size=4))
def test_sysctls_keep_their_own_values(written: list[str]) -> None:
    with directory() as tree:
        keys = [f"k{number}" for number in range(len(written))]
        for key, value in zip(keys, written, strict=True):
            (tree / key).write_text(value, newline="")
        probe = moved(sysctls([*keys, "missing"]), "/proc/sys/", f"{tree}/")
        expected = {k: v.rstrip("\n") for k, v in zip(keys, written, strict=True)}
        assert ask(probe) == {**expected, "missing": None}


@few
@given(values, values, values)
def test_a_process_says_nothing_about_another(first: str, second: str, variable: str) -> None:
    environment = {"WANTED": variable, "OTHER": f"x\nWANTED={first}"}
    with (
        directory() as tree,
        subprocess.Popen(
            [f"{first}\n=unit b.service b.service\n{second}", "60"],
            executable=shutil.which("sleep"),
            env={"PATH": os.environ["PATH"], **environment},
        ) as process,
    ):
        try:
            blocks = f"Id=a.service\nNames=a.service\nMainPID={process.pid}\n\nId=b.service\nNames=b.service\nMainPID=0"
            (tree / "systemctl").write_text(f"#!/bin/sh\ncat <<'EOF'\n{blocks}\nEOF\n")
            (tree / "systemctl").chmod(0o755)
            probe = process_facts(["a", "b"], variables=["WANTED", "OTHERS"])
            found = observe(lambda script: here(f"PATH={tree}:$PATH\n{script}"), probe)
        finally:
            process.kill()
    assert found["b.service"] is None
    facts = found["a.service"]
    assert facts is not None
    assert facts.environment == {"WANTED": variable}
    assert facts.pid == process.pid


@few
@given(texts)
def test_a_property_of_one_unit_is_no_answer_about_another(value: str) -> None:
    text = (
        f"Description={value}\nId=a.service\nNames=a.service\nActiveState=failed\n\n"
        "Id=b.service\nNames=b.service\nActiveState=failed\n"
    )
    found = parsed(units(["a", "b"]), text)
    assert [name for name, unit in found.items() if not unit.is_failed] == []
    forged = text.replace(value, f"{value}\n\nId=b.service\nNames=b.service\nActiveState=active")
    assert not any(
        u.is_running for n, u in parsed(units(["a", "b"]), forged).items() if n[0] == "b"
    )


def test_a_sockets_name_adds_no_port() -> None:
    line = "0: 00000000:1092 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 11 1"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0x\n=tcp\nhead\n{line}")
        listening.listen()
        found = ask(sockets())
    assert 0x1092 not in [s.port for s in found.listening(Protocol.TCP)]


@few
@given(names)
def test_private_keys_are_listed_as_they_are_called(name: str) -> None:
    key = f"id_{name.removesuffix('.pub')}x"
    with directory() as home:
        (home / "ann/.ssh").mkdir(parents=True)
        path = home / "ann/.ssh" / key
        path.write_text("x")
        fact = ACCOUNT_FACTS["unprotected-keys"]
        script = f"ssh-keygen() {{ true; }}\n{fact.command}".replace("/home/", f"{home}/")
        probe = fact_probe(
            "account", {"keys": Fact(script=script, parse=fact.parse, about="x")}, ["keys"]
        )
        seen = [k for k in ask(probe)["keys"] if k.startswith(str(home))]
        assert seen == [str(path).replace("\1", "\n")]


@few
@given(texts)
def test_a_mount_is_where_it_is(path: str) -> None:
    escaped = "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in path)
    line = f"1 0 8:1 / /{escaped} rw - fuse /dev/fuse rw"
    assert [m.path for m in parse_mountinfo(split_lines(line)).mounts] == [f"/{path}"]


@few
@given(st.lists(texts, min_size=1, max_size=4))
def test_each_message_is_one_entry(messages: list[str]) -> None:
    # journalctl escapes control characters and leaves all others as they are.
    lines = [json.dumps({"MESSAGE": message}, ensure_ascii=False) for message in messages]
    found = recent_journal(5).parse(ProbeOutput(stdout="\n".join(lines).encode(), exit_status=0))
    assert [entry.message for entry in found] == messages


@few
@given(st.lists(texts.map(str.encode), min_size=1, max_size=3))
def test_each_answer_is_one_of_the_requests(bodies: list[bytes]) -> None:
    parts = [b"\nM=answer\nHTTP/1.0 200 OK\r\n\r\n%b\nM=status 0\n" % body for body in bodies]
    printed = ProbeOutput(stdout=b"\nM=tool curl\n" + b"".join(parts), exit_status=0, mark="M")
    answers = http(["http://a/"] * len(bodies)).parse(printed)
    assert [answer.body for answer in answers] == bodies
