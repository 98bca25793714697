"""Search paths: whose they are, and who else can put a program there."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_nixos.backend_name import BackendName
from pytest_nixos.findings import Outcome
from pytest_nixos.observe.filesystems.search_path import SearchPath, search_paths
from pytest_nixos.standards.judging.judge import Verdict, judge
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
