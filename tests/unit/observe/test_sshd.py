"""What sshd -T prints."""

from __future__ import annotations

from pytest_nixos.observe.sshd import SSHD_FACTS


def test_sshd_settings() -> None:
    text = "port 22\nport 2222\nciphers a,b\nallowusers alice bob\npermitrootlogin no\n"
    assert SSHD_FACTS["settings"].parse(text) == {
        "port": ["22", "2222"],
        "ciphers": ["a", "b"],
        "allowusers": ["alice", "bob"],
        "permitrootlogin": "no",
    }
