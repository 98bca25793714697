"""What sshd -T prints."""

from __future__ import annotations

from pytest_nixos.observe.sshd import CASES, SSHD_FACTS, parse_sshd


def test_sshd_settings() -> None:
    text = "port 22\nport 2222\nciphers a,b\nallowusers alice bob\npermitrootlogin no\n"
    assert SSHD_FACTS["settings"].parse(text) == {
        "port": ["22", "2222"],
        "ciphers": ["a", "b"],
        "allowusers": ["alice", "bob"],
        "permitrootlogin": "no",
    }


def test_what_others_get_is_told_by_case() -> None:
    text = (
        "passwordauthentication no\nport 22\n"
        "=case user=alice addr=192.0.2.1\npasswordauthentication yes\nport 22\n"
        "=case user=bob addr=192.0.2.1\npasswordauthentication no\nport 22\n"
        "=case user=eve addr=10.0.0.0\n"
    )
    settings = parse_sshd(text)
    assert settings["passwordauthentication"] == "no"
    # What sshd did not answer is no case, and neither is what is the same.
    assert settings[CASES] == {"user=alice addr=192.0.2.1": {"passwordauthentication": "yes"}}


def test_without_other_cases_there_is_nothing_more() -> None:
    assert parse_sshd("port 22\n=case user=a addr=b\nport 22\n") == {"port": ["22"]}
