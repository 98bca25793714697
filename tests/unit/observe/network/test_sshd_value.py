"""Spellings of sshd's settings, each held against what OpenSSH 10.0 prints for it with ``-G``."""

from __future__ import annotations

import pytest

from pytest_nixos.observe.network.sshd_value import is_in_force

Json = object


@pytest.mark.parametrize(
    ("key", "declared", "prints"),
    [
        ("logingracetime", "2m", "120"),
        ("clientaliveinterval", "1h30m", "5400"),
        ("clientaliveinterval", 300, "300"),
        ("rekeylimit", "1G 1h", "1073741824 3600"),
        ("rekeylimit", "default none", "0 0"),
        ("maxstartups", "10", "10:30:10"),
        ("maxstartups", "10:30:60", "10:30:60"),
        ("compression", "delayed", "yes"),
        ("permitrootlogin", "prohibit-password", "without-password"),
        ("ciphers", "+aes128-cbc", ["chacha20-poly1305@openssh.com", "aes128-cbc"]),
        ("ciphers", "-*cbc", ["chacha20-poly1305@openssh.com", "aes128-ctr"]),
        ("ciphers", "^aes128-ctr", ["aes128-ctr", "chacha20-poly1305@openssh.com"]),
        ("x11forwarding", False, "no"),
        ("loglevel", "VERBOSE", "VERBOSE"),
        ("acceptenv", ["LANG", "LC_*"], ["LANG", "LC_*"]),
    ],
)
def test_spellings_that_mean_the_same(key: str, declared: Json, prints: Json) -> None:
    assert is_in_force(key, declared, prints)


@pytest.mark.parametrize(
    ("key", "declared", "prints"),
    [
        ("logingracetime", "2m", "60"),
        ("clientaliveinterval", "5m", "0"),
        ("clientaliveinterval", "soon", "0"),
        ("rekeylimit", "1G 1h", "0 0"),
        ("maxstartups", "10", "10:30:100"),
        ("maxstartups", "1", "10:30:10"),
        ("compression", "no", "yes"),
        ("maxauthtries", "3", "60"),
        ("ciphers", "+aes128-cbc", ["aes128-ctr"]),
        ("ciphers", "-*cbc", ["aes128-ctr", "aes128-cbc"]),
        ("ciphers", "^aes128-ctr", ["chacha20-poly1305@openssh.com", "aes128-ctr"]),
        ("ciphers", ["aes128-ctr"], ["aes256-ctr"]),
        ("permitrootlogin", "no", None),
    ],
)
def test_what_is_not_in_force(key: str, declared: Json, prints: Json) -> None:
    assert not is_in_force(key, declared, prints)
