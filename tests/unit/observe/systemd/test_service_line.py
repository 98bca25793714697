"""What services say that they do without."""

from __future__ import annotations

import re

import pytest

from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.observe.systemd.refused_line import refused_lines
from pytest_nixos.observe.systemd.service_line import (
    OF_SERVICES,
    OPTIONS_OF_SERVICES,
    refused_by_services,
)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            'nginx: [warn] conflicting server name "a.example" on 0.0.0.0:80, ignored',
            ("nginx.conf", 0, 'conflicting server name "a.example" on 0.0.0.0:80'),
        ),
        (
            "ERROR Jail 'web' skipped, because of wrong configuration: Unable to read the filter 'x'",
            (
                "jail.local",
                0,
                "Jail 'web' skipped, because of wrong configuration: Unable to read the filter 'x'",
            ),
        ),
        (
            "/run/current-system/sw/bin/postconf: warning: /etc/postfix/main.cf: unused parameter: smtp_tls=yes",
            ("main.cf", 0, "unused parameter: smtp_tls"),
        ),
        (
            'Ignoring unknown parameter "brosweable"',
            ("smb.conf", 0, 'unknown parameter "brosweable"'),
        ),
        (
            "(/etc/keepalived/keepalived.conf: Line 12) Unknown keyword 'virtual_routerid'",
            ("keepalived.conf", 12, "Unknown keyword 'virtual_routerid'"),
        ),
        (
            "error during parsing file /nix/store/x-rsyslog.conf, on or before line 3: syntax error [v8]",
            ("rsyslog.conf", 3, "syntax error [v8]"),
        ),
        (
            "PAM adding faulty module: /nix/store/x/lib/security/pam_u2.so",
            ("pam.d", 0, "faulty module: /nix/store/x/lib/security/pam_u2.so"),
        ),
    ],
)
def test_each_is_told_once_and_is_looked_for(said: str, told: tuple[str, int, str]) -> None:
    assert list(refused_by_services([said, f"app[1]: {said}"])) == [told]
    assert re.search(OF_SERVICES, said)
    assert told[0] in OPTIONS_OF_SERVICES


@pytest.mark.parametrize(
    "said",
    [
        "nginx: the configuration file /etc/nginx/nginx.conf syntax is ok",
        "Ignoring unknown signal",
        "PAM unable to resolve symbol: pam_sm_acct_mgmt",
        "",
    ],
)
def test_other_words_are_left_alone(said: str) -> None:
    assert list(refused_by_services([said])) == []


def test_they_stand_among_the_refused_lines_with_their_option() -> None:
    said = 'nginx: [warn] conflicting server name "a" on [::]:443, ignored'
    output = ProbeOutput(stdout=f"=journal\n=variables\n{said}\n".encode(), exit_status=0)
    (line,) = refused_lines().parse(output).lines
    assert str(line) == 'nginx.conf: conflicting server name "a" on [::]:443'
    assert line.option == "services.nginx.virtualHosts"
