"""What the activation of a boot said, as nixpkgs' stage 2 logs it."""

from __future__ import annotations

import pytest

from pytest_nixos.observe.systemd.activation import is_of_nspawn, parse_activation

GOOD = "running activation script...\nsetting up /etc...\nstarting systemd...\n"


def test_a_good_activation_is_told() -> None:
    seen = parse_activation(GOOD)
    assert seen.told
    assert seen.failures == ()


def test_a_failed_snippet_with_what_it_said() -> None:
    log = (
        "[    3.4] stage-2-init: running activation script...\n"
        "[    3.5] stage-2-init: install-secrets: cannot read the host's key\n"
        "[    3.5] stage-2-init: Activation script snippet 'setupSecrets' failed (1)\n"
        "[    3.6] stage-2-init: Activation script snippet 'users' failed (127)\n"
    )
    first, second = parse_activation(log).failures
    assert (first.snippet, first.status) == ("setupSecrets", 1)
    assert any("cannot read the host's key" in line for line in first.said)
    assert (second.snippet, second.status, second.said) == ("users", 127, ())


def test_silence_is_not_success() -> None:
    assert not parse_activation("").told
    assert not parse_activation("login: ").told


# As a container of nixpkgs 24.05 said, whose user ids are its own.
OF_NSPAWN = """running activation script...
mount: /dev: permission denied.
       dmesg(1) may have more information after failed mount system call.
mount: /run: permission denied.
       dmesg(1) may have more information after failed mount system call.
Activation script snippet 'specialfs' failed (32)
"""


@pytest.mark.parametrize(
    ("text", "mine"),
    [
        (OF_NSPAWN, True),
        (OF_NSPAWN.replace("specialfs", "etc"), False),
        (OF_NSPAWN.replace("mount: /run: permission denied", "mount: /srv: no such device"), False),
        ("running activation script...\nActivation script snippet 'specialfs' failed (1)\n", False),
    ],
)
def test_what_nspawn_refuses_is_told_from_what_the_host_lacks(text: str, mine: bool) -> None:
    (failure,) = parse_activation(text).failures
    assert is_of_nspawn(failure) is mine
