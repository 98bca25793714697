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


def test_passwords_that_crypt_does_not_know_are_told_by_their_accounts(tmp_path: Path) -> None:
    from passlib import hash as known

    good = [
        getattr(known, name).using(**({"rounds": 1000} if "sha" in name else {})).hash("x")
        for name in ("sha512_crypt", "sha256_crypt", "md5_crypt", "des_crypt")
    ]
    good += [
        "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7",  # crypt(5)
        "$2b$10$Un9EvhRCeoBrY1nhUjaQbOeRtMEtQzDfzSD7oQQRiuHlDcZbpDZWS",
        *("!", "*", "!!", "", "!$6$kept$", "x"),
    ]
    good[-2] = f"!{good[0]}"
    bad = [f"{good[0][:-1]}", "hunter2", "$6$salt$short", "alice:$6$x$y", "$9$a$b", "! secret"]
    shadow = tmp_path / "shadow"
    lines = [*(f"good{n}:{field}:1::::::" for n, field in enumerate(good))]
    lines += [f"bad{n}:{field}:1::::::" for n, field in enumerate(bad)]
    shadow.write_text("\n".join(lines) + "\n")
    fact = ACCOUNT_FACTS["malformed-passwords"]
    seen = here(fact.command.replace("/etc/shadow", str(shadow)))
    assert fact.parse(seen.stdout_text) == [f"bad{n}" for n in range(len(bad))], seen.stderr_text


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
