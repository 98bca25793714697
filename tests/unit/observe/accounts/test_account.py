"""Accounts: read from files as they are, never a hash."""

from __future__ import annotations

from pathlib import Path

from pytest_nixos.observe.accounts.account import ACCOUNT_FACTS
from tests.unit.observe.here import here


def test_passwd_facts_never_print_a_hash(tmp_path: Path) -> None:
    shadow = tmp_path / "shadow"
    shadow.write_text("root:!:1::::::\nalice:$6$salt$hash:1::::::\nbob::1::::::\n")
    for name, fact in ACCOUNT_FACTS.items():
        if "/etc/shadow" not in fact.script:
            continue
        script = fact.command.replace("/etc/shadow", str(shadow))
        result = here(script)
        assert b"hash" not in result.stdout and b"salt" not in result.stdout, name
    empty = ACCOUNT_FACTS["empty-passwords"]
    assert empty.parse(here(empty.command.replace("/etc/shadow", str(shadow))).stdout_text) == [
        "bob"
    ]
    root = ACCOUNT_FACTS["root-password"]
    assert (
        root.parse(here(root.command.replace("/etc/shadow", str(shadow))).stdout_text) == "locked"
    )


def test_account_facts_read_files_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text(
        "root:x:0:0::/root:/bin/bash\ntoor:x:0:0::/root:/bin/sh\nann:x:1000:100::/home/ann:/bin/bash\n"
        "app:x:990:990::/var/empty:/bin/bash\nno:x:991:991::/var/empty:/run/current-system/sw/bin/nologin\n"
        "none:x:992:992::/var/empty:\nodd\nzwei:x:1000:100::/home/zwei:/bin/false\n"
    )
    (tmp_path / "group").write_text("root:x:0:\nusers:x:100:ann\n")
    (tmp_path / "shadow").write_text(
        "root::1::::::\nann:$y$j9T$a$b:1::::::\napp:!:1::::::\nbob:$6$s$h:1::::::\n"
    )
    (tmp_path / "login.defs").write_text("# x\nENCRYPT_METHOD YESCRYPT\n")

    def seen(name: str) -> object:
        fact = ACCOUNT_FACTS[name]
        result = here(fact.command.replace("/etc/", f"{tmp_path}/"))
        assert result.exit_status == 0, result.stderr_text
        return fact.parse(result.stdout_text)

    assert seen("root-password") == "empty"
    assert seen("empty-passwords") == ["root"]
    assert seen("superusers") == ["root", "toor"]
    assert seen("duplicate-ids") == ["passwd 0", "passwd 1000"]
    assert seen("system-shells") == ["app"]
    assert seen("persons") == ["ann"]
    assert seen("password-hashing") == {"method": "YESCRYPT", "schemes": ["6", "y"]}
    for name in ("superusers", "duplicate-ids", "empty-passwords", "password-hashing"):
        script = ACCOUNT_FACTS[name].command.replace("/etc/", f"{tmp_path}/none/")
        assert here(script).exit_status != 0, name
