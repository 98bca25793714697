"""Search paths: whose they are, and who else can put a program there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.findings import Outcome
from pytest_nixos.observe.search_path import SearchPath, search_paths
from pytest_nixos.standards.judge import Verdict, judge
from pytest_nixos.standards.load import load_catalogue
from tests.unit.observe.here import ask, parsed
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


STORE = '[Service]\nEnvironment="PATH=/nix/store/a-x/bin:/nix/store/b-y/sbin"\n'
LOOSE = '[Service]\nEnvironment="PATH=/nix/store/a-x/bin:/home/alice/bin"\n'
ALL = ["running.service", "tty@1.service"]


@pytest.mark.parametrize(
    ("files", "asked"),
    [
        ({"a.service": STORE, "b.service": '[Service]\nEnvironment="NIX_PATH=/x" "T=%%I"\n'}, []),
        ({"a.service": STORE, "b.service": LOOSE}, ["b.service"]),
        ({"a.service.d/x.conf": LOOSE}, ["a.service"]),
        ({"a.service": "[Service]\nEnvironment = PATH=/home/alice/bin\n"}, ["a.service"]),
        ({"a.service": "[Service]\nEnvironment='A=b' 'PATH=/home/alice'\n"}, ["a.service"]),
        # Continued lines, escapes and specifiers.
        ({"a.service": "[Service]\nEnvironment=A=b \\\n  PATH=/home/alice\n"}, ["a.service"]),
        ({"a.service": "[Service]\nEnvironment=\\x50ATH=/home/alice\n"}, ["a.service"]),
        ({"a@b.service": "[Service]\nEnvironment=P%iTH=/home/alice\n"}, ["a@b.service"]),
        # What counts for services of other names.
        ({"a@.service": LOOSE}, ALL),
        ({"a-.service.d/x.conf": LOOSE}, ALL),
        ({"service.d/x.conf": LOOSE}, ALL),
        # Names that could end a line of the answer, and what cannot be read.
        ({"a.service.d/x\ny.conf": LOOSE}, ALL),
        ({"a.service.d/x:Environment.conf": LOOSE}, ALL),
        ({"a.service": "-> nowhere"}, ALL),
        # Services alone have a PATH that is looked at.
        ({"a.socket.d/x.conf": LOOSE}, []),
    ],
)  # fmt: skip
def test_services_with_a_path_beside_the_store_are_asked_for(
    files: Mapping[str, str], asked: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        file = tmp_path / "units" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            file.symlink_to(text.removeprefix("-> "))
        else:
            file.write_text(text)
    known = f'as 2 "/pytest-nixos-none" "{tmp_path}/units"'
    assert shown(tmp_path, monkeypatch, f"echo '{known}'") == sorted(asked)


def test_where_nobody_tells_where_units_lie_all_services_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown(tmp_path, monkeypatch, "exit 1") == ALL
    assert shown(tmp_path, monkeypatch, "echo 'as 1 \"/pytest-nixos-none\"'") == ALL


def shown(directory: Path, monkeypatch: pytest.MonkeyPatch, busctl: str) -> list[str]:
    """Return the services about which systemctl is asked; each has a PATH, and idle ones are told
    of too.
    """
    listed = r"".join(rf"{name} loaded active running x\n" for name in ALL)
    log = directory / "log"
    log.write_text("")
    systemctl = f"""case $1 in
  list-units) printf '{listed}';;
  show) while [[ $1 != -- ]]; do shift; done; shift
    for unit; do
      echo "$unit" >>{log}
      printf 'User=alice\\nEnvironment=PATH=/home/alice/bin\\nId=%s\\nActiveState=active\\n\\n' "$unit"
      printf 'Environment=PATH=/idle\\nId=idle.service\\nActiveState=inactive\\n\\n'
    done;;
esac"""
    for name, text in {"busctl": busctl, "systemctl": systemctl}.items():
        (directory / name).write_text(f"#!/bin/bash\n{text}\n")
        (directory / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    found = ask(search_paths())
    assert found is not None
    asked = sorted(log.read_text().split())
    of_units = [path.whose for path in found if path.whose.startswith("unit ")]
    assert sorted(of_units) == [f"unit {name}" for name in asked]
    return asked
