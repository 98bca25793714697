"""What the activation of a boot said, as nixpkgs' stage 2 logs it."""

from __future__ import annotations

from pytest_nixos.observe.systemd.activation import parse_activation

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
