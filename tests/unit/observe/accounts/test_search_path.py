"""Search paths: whose they are, and who else can put a program there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.findings import Outcome
from pytest_nixos.observe.accounts.search_path import SearchPath, search_paths
from pytest_nixos.observe.base import collect
from pytest_nixos.standards.judging.judge import Verdict, judge
from pytest_nixos.standards.load import load_catalogue
from tests.unit.observe.here import ask, here, parsed
from tests.unit.standards.samples import host_config

PASSWD = "root:x:0:0::/root:/bin/sh\nalice:x:1000:100::/home/alice:/bin/sh\nweb:x:300:300::/:/bin/nologin\n"
SAFE = "755 0 0 directory\x00/\x00755 0 0 directory\x00/home\x00700 1000 100 directory\x00/home/alice\x00"


def answer(*paths: tuple[str, str], stat: str = "", **changes: str) -> Sequence[SearchPath]:
    told = {"root": "/run/wrappers/bin:/run/current-system/sw/bin", **dict(paths)}
    text = f"=passwd\n{PASSWD}=group\nusers:x:100:alice\n"
    text += "".join(f"=path {whose}\n{path}\n" for whose, path in told.items())
    found = parsed(search_paths(), f"{text}=links\n=entries\n{SAFE}{stat}\n=complete\n")
    assert found is not None
    return found


def verdict(control: str, found: Sequence[SearchPath]) -> Verdict:
    seen = {"search-path": found}
    return judge(load_catalogue().control(control), host_config(), seen, BackendName.VM)


def test_everybody_finds_their_own_programs() -> None:
    found = answer(
        ("user alice", "/home/alice/bin:/run/wrappers/bin"), ("manager", "/run/wrappers/bin")
    )
    assert verdict("FS-021", found).outcome is Outcome.PASSED
    assert verdict("FS-022", found).outcome is Outcome.PASSED


def test_a_users_directory_in_the_path_of_root_or_a_unit() -> None:
    found = answer(
        ("root", "/home/alice/bin:/run/wrappers/bin"), ("unit backup.service root", "/home/alice/x")
    )
    wrong = verdict("FS-021", found)
    assert wrong.outcome is Outcome.FAILED
    assert "root: /home/alice/bin: alice (by /home/alice)" in wrong.reason
    assert "unit backup.service: /home/alice/x" in wrong.reason
    # A unit that runs as alice may trust her.
    assert verdict("FS-021", answer(("unit a.service alice", "/home/alice/x"))).outcome is (
        Outcome.PASSED
    )


def test_a_directory_that_others_can_write_in_a_users_path() -> None:
    loose = "775 0 100 directory\x00/opt\x00777 0 0 directory\x00/srv\x00"
    found = answer(("user alice", "/srv/bin:/opt"), stat=loose)
    wrong = verdict("FS-022", found)
    assert wrong.outcome is Outcome.FAILED
    assert (
        "user alice: /srv/bin: everybody (by /srv)" in wrong.reason and "/opt" not in wrong.reason
    )
    assert verdict("FS-021", found).outcome is Outcome.PASSED


def test_where_one_stands_is_anybodys() -> None:
    wrong = verdict("FS-021", answer(("root", "/run/wrappers/bin:.:")))
    assert ".: the directory in which it is started" in wrong.reason and "(empty)" in wrong.reason


def test_a_cut_answer_is_none() -> None:
    assert parsed(search_paths(), "=path root\n/bin\n") is None
    assert parsed(search_paths(), "=path root\n\n=links\n=entries\n=complete\n") is None


def test_this_machine_answers() -> None:
    found = ask(search_paths())
    assert found is not None
    assert "root" in [path.whose for path in found]


def test_without_root_or_the_top_nobody_knows_who_can_write() -> None:
    begun = "=path root\n/home/alice/bin\n=links\n=entries\n"
    who, top = f"=passwd\n{PASSWD}=group\n", "755 0 0 directory\x00/\x00\n"
    assert parsed(search_paths(), f"{who}{begun}{top}=complete\n") is not None
    assert parsed(search_paths(), f"=passwd\n\n=group\n{begun}{top}=complete\n") is None
    assert parsed(search_paths(), f"{who}{begun}\n=complete\n") is None


# systemd's end of the private bus, see tests/unit/observe/systemd/test_bus.py: about three services.
BRIDGE = """#!{python}
import sys
from jeepney import HeaderFields, Parser, new_error, new_method_return
parser = Parser()
sys.stdin.buffer.readline(), sys.stdin.buffer.readline()
sys.stdout.buffer.write(b"OK 0123456789abcdef0123456789abcdef\\r\\n")
number = 0
while raw := sys.stdin.buffer.read1():
    for call in parser.feed(raw):
        number += 1
        {trouble}
        path, (interface, name) = call.header.fields[HeaderFields.path], call.body
        if path == "/org/freedesktop/systemd1":
            reply = new_error(call, "org.freedesktop.DBus.Error.UnknownObject", "s", ("Unknown object '/x=y'.",))
        elif interface != "org.freedesktop.systemd1.Service":
            reply = new_error(call, "org.freedesktop.DBus.Error.UnknownInterface")
        elif name == "User":
            reply = new_method_return(call, "v", (("s", "alice" if "/a_2e" in path else ""),))
        else:
            own = {{"a": ["PATH=/home/alice/x:/nix/store/x/bin"], "b": ["L=h", "PATH=/opt/x"], "c": []}}[path.split("/")[-1][0]]
            # A length that is the code of "=" looks like an assignment.
            for more in range(256):
                words = ["TOKEN=" + "hunter2" * {count}, *own, "_=hunter2" + "x" * more]
                reply = new_method_return(call, "v", (("as", words),))
                if reply.serialise(serial=number)[4] == ord("="):
                    break
        answer = bytearray(reply.serialise(serial=number))
        answer[2] = 1  # to an answer none is expected, says systemd
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()
"""
SYSTEMCTL = """#!/bin/bash
case "$*" in
  list-units*) printf '%s\\n' 'a.service loaded active running A' '\u25cf b.service loaded failed failed B' 'c.service loaded active exited C';;
  *) printf '%s\\n' Id=a.service User=alice 'Environment=TOKEN=hunter2 PATH=/home/alice/x:/nix/store/x/bin' '' \\
      Id=b.service User= 'Environment=TOKEN=hunter2 "PATH=/opt/x"' '' Id=c.service User= Environment=;;
esac
"""


def of_units(
    programs: Path, monkeypatch: pytest.MonkeyPatch, *, bridge: str
) -> tuple[Sequence[SearchPath] | None, str]:
    """Return the search paths of units where systemd answers so, and all that left the guest."""
    for name, text in (("systemctl", SYSTEMCTL), ("systemd-stdio-bridge", bridge)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    output = collect(here, [search_paths()])["search-path"]
    found = search_paths().parse(output)
    if found is None:
        return None, output.text
    return [path for path in found if path.whose.startswith("unit ")], output.text


EXPECTED = [
    ("unit a.service", "alice", ("/home/alice/x", "/nix/store/x/bin")),
    ("unit b.service", "root", ("/opt/x",)),
]


@pytest.mark.parametrize("count", [1, 40, 2250])
def test_services_are_those_of_the_bus_and_their_secrets_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    bridge = BRIDGE.format(python=sys.executable, trouble="pass", count=count)
    found, told = of_units(tmp_path, monkeypatch, bridge=bridge)
    assert found is not None
    assert [(path.whose, path.account, path.directories) for path in found] == EXPECTED
    assert "hunter2" not in told and "TOKEN" not in told
    assert "=answers" in told


@pytest.mark.parametrize("trouble", ["if number == 4: sys.exit(0)", "sys.exit(1)"])
def test_without_the_bus_services_are_those_of_systemctl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    bridge = BRIDGE.format(python=sys.executable, trouble=trouble, count=1)
    found, told = of_units(tmp_path, monkeypatch, bridge=bridge)
    assert found is not None
    assert [(path.whose, path.account, path.directories) for path in found] == EXPECTED
    assert "hunter2" not in told and "=answers" not in told


def test_a_bus_that_speaks_of_fewer_services_tells_of_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble = "if number == 3: continue"
    bridge = BRIDGE.format(python=sys.executable, trouble=trouble, count=1)
    assert of_units(tmp_path, monkeypatch, bridge=bridge)[0] is None
