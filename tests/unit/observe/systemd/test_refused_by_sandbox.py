"""Services that their own unit keeps from their work, and words that tell more than the last ones."""

from __future__ import annotations

import pytest

from pytest_nixos.observe import why_failed
from tests.unit.standards.samples import host_config, sample_unit

OPTION = 'systemd.services."app".serviceConfig'
OWN = "2026-11-30T11:36:14+00:00 it app[7]: {}"
OF_SYSTEMD = "2026-11-30T11:36:14+00:00 it systemd[1]: {}"
ENDED = OF_SYSTEMD.format("app.service: Main process exited, code=exited, status=1/FAILURE")


def told(*said: str, end: str = ENDED, **service: str) -> tuple[str, str]:
    unit = sample_unit("app.service", **{key: (value,) for key, value in service.items()})
    lines = [*(OWN.format(text) for text in said), end]
    failures = why_failed({"app.service": lines}, host_config(units={"app.service": unit}))
    return failures.by_unit["app.service"].why, failures.remedy


@pytest.mark.parametrize(
    ("said", "service", "why", "remedy"),
    [
        (
            ["OSError: [Errno 97] Address family not supported by protocol"],
            {"RestrictAddressFamilies": "AF_UNIX"},
            "since RestrictAddressFamilies= is AF_UNIX",
            f'{OPTION}.RestrictAddressFamilies = lib.mkForce [ "AF_UNIX" "AF_INET" "AF_INET6" ];',
        ),
        (
            ["cat: /home/carl/cfg: Permission denied"],
            {"ProtectHome": "true"},
            "it does not see /home/carl/cfg, since ProtectHome= is true",
            f"{OPTION}.ProtectHome = lib.mkForce false;",
        ),
        (
            ["FileNotFoundError: [Errno 2] No such file or directory: '/root/.netrc'"],
            {"ProtectHome": "tmpfs"},
            "it does not see /root/.netrc, since ProtectHome= is tmpfs",
            f"{OPTION}.ProtectHome = lib.mkForce false;",
        ),
        (
            ['sudo: The "no new privileges" flag is set, which prevents sudo from running as root.', "sudo: adjust it"],
            {"NoNewPrivileges": "true", "User": "app"},
            "since NoNewPrivileges= forbids it",
            f"{OPTION}.NoNewPrivileges = lib.mkForce false;",
        ),
        (
            ['sudo: The "no new privileges" flag is set'],
            {"PrivateDevices": "true", "User": "app"},
            "since PrivateDevices forbids it",
            f"({OPTION}.User), in place of sudo.",
        ),
        (
            ["    self.socket.bind(self.server_address)", "PermissionError: [Errno 13] Permission denied"],
            {"User": "app", "CapabilityBoundingSet": "", "AmbientCapabilities": "CAP_NET_BIND_SERVICE"},
            "since CapabilityBoundingSet= lacks CAP_NET_BIND_SERVICE",
            f'{OPTION}.CapabilityBoundingSet = lib.mkForce [ "CAP_NET_BIND_SERVICE" ];',
        ),
        (
            ["bind() to 0.0.0.0:80 failed (13: Permission denied)"],
            {"User": "app"},
            "its account may not listen on a port below 1024",
            f'{OPTION}.AmbientCapabilities = [ "CAP_NET_BIND_SERVICE" ];',
        ),
        (
            ["Error: listen EACCES: permission denied 0.0.0.0:80"],
            {"User": "app"},
            "its account may not listen on a port below 1024",
            f'{OPTION}.AmbientCapabilities = [ "CAP_NET_BIND_SERVICE" ];',
        ),
        (
            ["bash: line 1: /proc/sys/vm/swappiness: Read-only file system"],
            {"ProtectKernelTunables": "true"},
            "since ProtectKernelTunables= is true",
            f"{OPTION}.ProtectKernelTunables = lib.mkForce false;",
        ),
        (
            ["cannot open /dev/ttyUSB0: No such file or directory"],
            {"PrivateDevices": "true"},
            "it does not see /dev/ttyUSB0, since PrivateDevices= is on",
            f"{OPTION}.PrivateDevices = lib.mkForce false;",
        ),
        (
            ["accept: Too many open files"],
            {"LimitNOFILE": "16"},
            "it may open LimitNOFILE=16 files",
            f"raise {OPTION}.LimitNOFILE",
        ),
    ],
)  # fmt: skip
def test_what_the_unit_forbids(
    said: list[str], service: dict[str, str], why: str, remedy: str
) -> None:
    found, text = told(*said, **service)
    assert why in found
    assert text.endswith(remedy)
    # Where the unit does not forbid it, it is not blamed.
    found, _ = told(*said, User=service.get("User", "root"))
    assert "since" not in found


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            [
                'nginx: [emerg] unknown directive "proxy_tiemout" in /nix/store/0123456789abcdfghijklmnpqrsvwxyz-nginx.conf:3',
                "nginx: configuration file /etc/nginx.conf test failed",
            ],
            'nginx: [emerg] unknown directive "proxy_tiemout" in …/nginx.conf:3',
        ),
        (
            ['ts=2026-11-30T15:49:24Z caller=main.go:7 level=error err="field scrape_intervl not found"'],
            'err="field scrape_intervl not found"',
        ),
        (["starting", "no luck"], "no luck"),
    ],
)  # fmt: skip
def test_the_words_that_tell_go_before_the_last_ones(said: list[str], words: str) -> None:
    assert told(*said)[0] == f"it ended with exit status 1, its last words: {words}"


def test_of_several_runs_the_last_one_counts() -> None:
    early, late = (OWN.format(text) for text in ("open /a: no such file", "no luck"))
    lines = [early, ENDED, OF_SYSTEMD.format("Started app.service."), late, ENDED]
    failures = why_failed({"app.service": lines}, host_config(units={}))
    assert failures.by_unit["app.service"].why.endswith("its last words: no luck")


@pytest.mark.parametrize(
    ("said", "service", "remedy"),
    [
        # A file that it would write: the directory is what it lacks.
        (
            "bash: line 1: /var/lib/app/x: No such file or directory",
            {},
            f'{OPTION}.StateDirectory = "app";',
        ),
        (
            "cannot open /srv/app/db.sqlite: No such file or directory",
            {},
            'systemd.tmpfiles.settings."app"."/srv/app".d = { mode = "0750"; user = "root"; };',
        ),
        (
            "error creating stub state file /var/lib/app/status: No such file or directory",
            {},
            f'{OPTION}.StateDirectory = "app";',
        ),
        (
            "open /var/lib/app/app.conf: no such file or directory",
            {"StateDirectory": "app"},
            "# app.service: read why, then correct it: journalctl -b -u app.service",
        ),
        (
            "cat: /etc/app/key: Permission denied",
            {"User": "app"},
            'environment.etc."app/key" says whose it is (user, group, mode) and what is in it.',
        ),
    ],
)  # fmt: skip
def test_a_file_that_is_not_there(said: str, service: dict[str, str], remedy: str) -> None:
    assert told(said, **service)[1].endswith(remedy)


def test_a_oneshot_that_runs_on() -> None:
    end = OF_SYSTEMD.format("app.service: Failed with result 'timeout'.")
    why, remedy = told(end=end, Type="oneshot")
    assert why == "it did not end in the time that it has, as Type=oneshot demands"
    assert f'{OPTION}.Type = lib.mkForce "exec";' in remedy


def test_a_service_that_ends_well_and_is_started_again() -> None:
    lines = [OF_SYSTEMD.format(f"app.service: {text}") for text in ("Deactivated successfully.", "Failed with result 'start-limit-hit'.")]  # fmt: skip
    unit = sample_unit("app.service", Restart=("always",))
    failures = why_failed({"app.service": lines}, host_config(units={"app.service": unit}))
    assert "it ends with success, and Restart=always starts it again" in failures.words
    assert 'Restart = lib.mkForce "no";' in failures.remedy
