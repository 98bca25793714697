"""Which commands of rules are as good as a shell, and which of two means the other."""

from __future__ import annotations

import pytest

from pytest_nixos.observe.accounts.command_pattern import (
    as_good_as_a_shell,
    covers,
    may_mean_the_same,
)

SW = "/run/current-system/sw/bin"


@pytest.mark.parametrize(
    "command",
    [
        *("ALL", "su", "/run/wrappers/bin/su -", "/run/wrappers/bin/su *", f'{SW}/bash ""', f"{SW}/*"),
        *(f"{SW}/", "^/.*$", f"^{SW}/(ba|z)?sh$", "^/opt/(bash|x)$ ^-l$", "/bin/[a-z]*", "/bin/[[:alpha:]]*", "/*/s*"),
        *("/nix/store/*/bin/", "/bin/*sh -l", "/opt/tools/bash", "/bin/sh /opt/scripts/*", "sudoedit"),
        *("^/bin/[[:alpha:]+(", "env", "env bash", "/bin/su -l root", "/bin/nix*", "sudoedit /etc/*"),
    ],
)  # fmt: skip
def test_as_good_as_a_shell(command: str) -> None:
    assert as_good_as_a_shell(command)


@pytest.mark.parametrize(
    "command",
    [
        *(f"{SW}/systemctl restart web", f"{SW}/systemctl restart *", "/opt/tools/", "/opt/tools/*"),
        *("/bin/bash -c true", "/bin/bash /opt/x", "/bin/su postgres", "/bin/su - postgres", "/bin/ls*"),
        *("^/opt/deploy$", "sudoedit /etc/motd", "/bin/env A=b /bin/true", "/opt/bashful"),
    ],
)  # fmt: skip
def test_not_as_good_as_a_shell(command: str) -> None:
    assert not as_good_as_a_shell(command)


def test_a_rule_covers_what_it_certainly_means() -> None:
    for rule in ("ALL", "/bin/*", "/bin/", "/bin/echo"):
        assert covers(rule, "/bin/echo") and covers(rule, "/bin/echo hi")
    for rule in ("/bin/echo hi", "/bin/*/*", "/bin", "^/bin/.*$", "/bin/ls", "/bin/[[:alpha:]]*"):
        assert not covers(rule, "/bin/echo")
    assert not covers("/bin/*", "ALL") and not covers("/bin/*", "/bin/e*")


def test_two_commands_may_mean_the_same() -> None:
    for one in ("ALL", "/bin/*", "/bin/", "^/bin/e", "/bin/echo", "/usr/bin/echo", "/bin/echo h*"):
        assert may_mean_the_same(one, "/bin/echo hi") and may_mean_the_same("/bin/echo hi", one)
    for one in ("/bin/ls", "/opt/*", "/bin/echo ho", "^/opt"):
        assert not may_mean_the_same(one, "/bin/echo hi")
