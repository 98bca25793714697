"""Commands of units that only a shell would understand."""

from __future__ import annotations

import pytest

from checks.units.commands import unread_commands
from tests.unit.standards.samples import sample_unit

BIN = "/nix/store/x-coreutils/bin"


def told(command: str, key: str = "ExecStart", **service: str) -> list[str]:
    others = {name: (value,) for name, value in service.items()}
    unit = sample_unit("app.service", **others, **{key: (command,)})
    return [one.why for one in unread_commands(unit)]


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (f"{BIN}/echo hello > /run/hello", ">"),
        (f"{BIN}/echo hello >> /run/hello", ">>"),
        (f"{BIN}/echo hello >/run/hello", ">/run/hello"),
        (f"-{BIN}/cat /etc/a 2>/dev/null", "2>/dev/null"),
        (f"{BIN}/cat /etc/a 2>&1", "2>&1"),
        (f"{BIN}/mkdir -p /run/a && {BIN}/touch /run/a/b", "&&"),
        (f"{BIN}/rm /run/a || true", "||"),
        ("/bin/tar -cf - /etc | /bin/gzip", "|"),
        (f"{BIN}/touch /run/$(date +%%F)", "/run/$(date"),
        (f"{BIN}/touch /run/`date`", "/run/`date`"),
        (f"{BIN}/rm -f /tmp/app/*.lock", "/tmp/app/*.lock"),
    ],
)
def test_words_that_only_a_shell_reads(command: str, word: str) -> None:
    (why,) = told(command)
    assert f" hands {word} to " in why


@pytest.mark.parametrize(
    "command",
    [
        f"{BIN}/sleep infinity",
        "/bin/bash -c 'a > b; c | d && e $(f)'",
        '/nix/store/x-bash-5.2/bin/bash -ec "a > /b"',
        f"|{BIN}/echo a > /run/a",
        f"{BIN}/env bash -c 'a | b'",
        "/bin/jq '.a | .b' /etc/a.json",
        f'{BIN}/printf "%%s > %%s" a b',
        f"{BIN}/expr 1 > 2",
        '/bin/su -c "a && b $(c)" app',
        "/bin/find /srv -name *.tmp -delete",
        f"{BIN}/true ; {BIN}/false",
        "/bin/app --filter=a|b --range=1>2",
    ],
)
def test_words_that_mean_what_they_look_like(command: str) -> None:
    assert told(command) == []


@pytest.mark.parametrize(
    ("command", "service", "unset"),
    [
        ("/bin/app --port $PORT", {}, "$PORT"),
        ("/bin/app --port ${PORT}", {"Environment": "PORTS=1"}, "$PORT"),
        ("/bin/app --port ${PORT}", {"Environment": "A=1 PORT=80"}, ""),
        ("/bin/app --port ${PORT}", {"Environment": '"PORT=80"'}, ""),
        ("/bin/app --port $PORT", {"EnvironmentFile": "/etc/app.env"}, ""),
        ("/bin/app --port $PORT", {"PassEnvironment": "PORT"}, ""),
        ("/bin/app --port $$PORT", {}, ""),
        (":/bin/app --port $PORT", {}, ""),
        ("/bin/app $HOME/a", {}, "$HOME"),
        ("/bin/app $HOME/a", {"User": "app"}, ""),
        ("/bin/kill -HUP $MAINPID", {}, ""),
        ("/bin/app ${STATE_DIRECTORY}/a ${CREDENTIALS_DIRECTORY}/b", {}, ""),
        ("/bin/app ${PORT:-80} $1", {}, ""),
        ("/bin/bash -c 'for i in 1 2; do echo $i; done'", {}, "$i"),
        ("/bin/bash -c 'for i in 1 2; do echo $$i; done'", {}, ""),
    ],
)
def test_variables_that_nothing_sets(command: str, service: dict[str, str], unset: str) -> None:
    whys = told(command, **service)
    assert [f"gets nothing for {unset}," in why for why in whys] == ([True] if unset else [])


def test_each_says_what_to_do() -> None:
    def remedy(command: str, key: str) -> str:
        (one,) = unread_commands(sample_unit("app.service", **{key: (command,)}))
        return one.remedy

    moved = remedy(f"{BIN}/echo a > /run/a", "ExecStart")
    assert 'systemd.services."app".script' in moved
    assert 'systemd.services."app".preStart' in remedy(f"{BIN}/echo a > /run/a", "ExecStartPre")
    assert "writeShellScript" in remedy(f"{BIN}/echo a > /run/a", "ExecCondition")
    assert "$$i" in remedy("/bin/sh -c 'echo $i'", "ExecStart")
    assert 'systemd.services."app".environment.PORT' in remedy("/bin/app $PORT", "ExecStart")
