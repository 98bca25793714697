"""Who can change what a path leads to."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos.observe.base import Probe
from pytest_nixos.observe.filesystems.writers import (
    READ_ACCOUNTS,
    STAT_PATHS,
    Accounts,
    Entry,
    parse_accounts,
    parse_entries,
)
from tests.unit.observe.here import ask, here

ACCOUNTS = parse_accounts(
    {
        "passwd": ["root:x:0:0::/root:/bin/sh", "alice:x:1000:100::/home/alice:/bin/sh",
                   "bob:x:1001:100::/home/bob:/bin/sh", "svc:x:300:300::/:/bin/nologin", "odd:line"],
        "group": ["root:x:0:", "users:x:100:", "staff:x:50:alice,bob", "nixbld:x:30000:n1,n2,n3,n4"],
    }
)  # fmt: skip


def entry(mode: int, uid: int = 0, gid: int = 0, *, is_link: bool = False) -> Entry:
    return Entry(mode=mode, uid=uid, gid=gid, is_link=is_link)


def who(path: str, owner: str = "root", **entries: Entry) -> list[str]:
    table = {"/" + name.strip("_").replace("__", "/"): e for name, e in entries.items()}
    table.setdefault("/", entry(0o755))
    return list(ACCOUNTS.writers(path, table, {}, owner=owner))


def test_accounts_know_their_groups() -> None:
    assert ACCOUNTS.persons == ["alice", "bob"]
    assert ACCOUNTS.groups_of("alice") == {"users", "staff"}
    assert ACCOUNTS.members(100) == {"alice", "bob"}


def test_domain_and_homed_accounts_are_persons() -> None:
    lines = ["root:x:0:0::/root:/bin/sh", "homed:x:60100:100::/home/homed:/bin/sh",
             "dom:x:1200001:100::/home/dom:/bin/sh", "nobody:x:65534:65534::/:/bin/sh",
             "odd:x:1200002:100::/:/opt/isfalse", "out:x:1200003:100::/:/sbin/nologin"]  # fmt: skip
    assert parse_accounts({"passwd": lines}).persons == ["dom", "homed", "odd"]


@pytest.mark.parametrize(
    ("dead", "script"),
    [
        ("getent() { [ $1 = group ] || kill -9 $BASHPID; }", READ_ACCOUNTS),
        ('getent() { [ "$1" = passwd ] && echo "root:x:0:0::/root:/bin/sh" || return 137; }', READ_ACCOUNTS),
        ("getent() { echo 'alice:x:1000:100::/home/alice:/bin/sh'; }", READ_ACCOUNTS),
        ("stat() { return 137; }; paths=(/etc/passwd)", STAT_PATHS),
        ("readlink() { return 137; }; paths=(/etc/passwd)", STAT_PATHS),
        ("paths=(/{1..2001})", STAT_PATHS),
    ],
)  # fmt: skip
def test_a_program_that_dies_ends_the_probe(dead: str, script: str) -> None:
    begun = "title() { :; }\n"
    assert "complete" in here(f"{begun}paths=(/etc /nowhere)\n{script}\necho complete").stdout_text
    assert "complete" not in here(f"{begun}{dead}\n{script}\necho complete").stdout_text


def test_owner_group_and_everybody_can_write() -> None:
    assert who("/opt/bin", opt=entry(0o755), opt__bin=entry(0o755)) == []
    assert who("/opt/bin", opt=entry(0o755), opt__bin=entry(0o757)) == ["everybody (by /opt/bin)"]
    assert who("/opt/bin", opt=entry(0o755), opt__bin=entry(0o775, gid=50)) == [
        "alice (by /opt/bin)", "bob (by /opt/bin)",
    ]  # fmt: skip
    assert who("/opt/bin", opt=entry(0o755, uid=300), opt__bin=entry(0o755)) == ["svc (by /opt)"]
    # What is the account's own is no business of another.
    assert who("/opt/bin", "svc", opt=entry(0o755, uid=300), opt__bin=entry(0o755)) == []


def test_a_sticky_directory_lets_add_and_not_replace() -> None:
    assert who("/tmp/bin", tmp=entry(0o1777), tmp__bin=entry(0o755)) == []
    assert who("/tmp", tmp=entry(0o1777)) == ["everybody (by /tmp)"]
    # What is not there yet, anybody may make.
    assert who("/tmp/bin", tmp=entry(0o1777)) == ["everybody (by /tmp)"]


def test_the_store_is_trusted_and_links_lead_on() -> None:
    big = entry(0o1775, gid=30000)
    assert who("/nix/store/x/bin", nix__store=big, nix__store__x=entry(0o555, uid=1000)) == []
    table = {"/": entry(0o755), "/opt": entry(0o777, is_link=True), "/srv": entry(0o757)}
    assert ACCOUNTS.writers("/opt", table, {"/opt": "/srv"}) == ["everybody (by /srv)"]


def test_this_machine_is_asked_once(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir(mode=0o777)
    (tmp_path / "bin").chmod(0o777)
    (tmp_path / "link").symlink_to("bin")
    script = f"paths=({tmp_path}/link {tmp_path}/absent/x)\n{STAT_PATHS}"
    probe = Probe(name="x", script=script, parse=lambda output: parse_entries(dict(output.records)))
    entries, links = ask(probe)
    assert links == {f"{tmp_path}/link": f"{tmp_path}/bin"}
    assert entries[f"{tmp_path}/bin"].mode == 0o777 and entries[f"{tmp_path}/link"].is_link
    assert f"{tmp_path}/absent" not in entries and "/" in entries
    nobody = Accounts(uids={"root": 0}, gids={}, shells={}, homes={}, groups={})
    assert nobody.writers(f"{tmp_path}/link", entries, links) == [f"everybody (by {tmp_path}/bin)"]


LINKS_ONE_BY_ONE = r"""
title links
for path in "${paths[@]}"; do
  real=$(readlink -f -- "$path") && [ "$real" != "$path" ] && printf '%s\0%s\0' "$path" "$real"
done
"""


def test_one_readlink_says_what_one_for_each_path_says(tmp_path: Path) -> None:
    (tmp_path / "real/bin").mkdir(parents=True)
    (tmp_path / "real/bin/tool").touch()
    (tmp_path / "with space").symlink_to("real")
    (tmp_path / "gone").symlink_to("real/absent")
    (tmp_path / "far").symlink_to("nowhere/at/all")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "chain").symlink_to("with space/bin/tool")
    (tmp_path / "file").touch()
    names = ["real/bin", "real/bin/tool", "with space", "with space/bin/tool", "gone", "far", "loop", "chain",
             "with space/new", "absent/new", "file/new", "real/../with space/bin", "far/x", "loop/x", "gone/x"]  # fmt: skip
    paths = " ".join(f"'{tmp_path}/{name}'" for name in names)
    found = {
        script: dict(ask_records(f"paths=({paths})\n{script}")["links"])
        for script in (STAT_PATHS, LINKS_ONE_BY_ONE)
    }
    assert found[STAT_PATHS] == found[LINKS_ONE_BY_ONE]
    assert len(found[STAT_PATHS]) >= 6


def test_many_paths_start_two_programs(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/usr")
    paths = " ".join(f"{tmp_path}/link/{i}" for i in range(60))
    count = tmp_path / "count"
    shims = "".join(
        f'{name}() {{ echo {name} >>{count}; command {name} "$@"; }}\n'
        for name in ("readlink", "stat", "find", "ls")
    )
    assert len(ask_records(f"{shims}paths=({paths} / /etc)\n{STAT_PATHS}")["links"]) >= 60
    assert sorted(count.read_text().split()) == ["readlink", "stat"]


def ask_records(script: str) -> dict[str, list[tuple[str, str]]]:
    """Run a script, and return the pairs in each of its parts."""

    def pairs(text: str) -> list[tuple[str, str]]:
        fields = text.split("\0")
        return list(zip(fields[::2], fields[1::2], strict=False))

    probe = Probe(
        name="x", script=script, parse=lambda out: {t: pairs(text) for t, text in out.records}
    )
    return ask(probe)
