"""A fleet over real ssh: each host an sshd in namespaces of its own, with its own name; one that
refuses, one that never answers. Nix is the fake one: what is tried is the way to many hosts.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pytest_nixos.local.timing import Deadline
from tests.plugin.conftest import field  # noqa: F401 - a fixture
from tests.plugin.field import Field

SSHD = os.environ.get("PYTEST_NIXOS_SSHD") or shutil.which("sshd", path="/usr/sbin:/usr/bin")
SSH = shutil.which("ssh")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or None in (SSHD, SSH, shutil.which("unshare")),
    reason="needs root, the OpenSSH client and sshd (PYTEST_NIXOS_SSHD)",
)

# sshd wants a user of its own and /run/sshd; neither may appear on this machine.
SERVE = """
set -eu
cp /etc/passwd "$1/passwd.$2"
grep -q '^sshd:' "$1/passwd.$2" || echo 'sshd:x:64321:65534::/run/sshd:/usr/sbin/nologin' >>"$1/passwd.$2"
mount --bind "$1/passwd.$2" /etc/passwd
mkdir -p /run/sshd && mount -t tmpfs -o mode=0755 none /run/sshd
hostname "$2"
# What root's login shell reads here is no part of a host, and may wait for a lock that all would share.
mount -t tmpfs -o mode=0700 none /root
exec "$4" -D -e -f "$1/sshd_config" -o "ListenAddress=$3"
"""
CHECK = """
import pytest

@pytest.mark.nixos_control("BOOT-001")
def test_who(nixos_machine):
    assert nixos_machine.run("hostname").stdout.decode().strip() == nixos_machine.name

@pytest.mark.nixos_control("BOOT-002")
def test_observed(nixos_observations):
    pass
"""
PROFILE = """
profile = "sysctls"
title = "Kernel parameters"
description = "The suite kernel-sysctl."

[select]
suites = ["kernel-sysctl"]
"""
PORT = 2222


class Fleet:
    """Hosts that listen, and an ``ssh`` that knows the way to them.

    :param directory: keys, settings and logs.
    :param tools: the directory that is first on PATH.
    """

    def __init__(self, directory: Path, tools: Path) -> None:
        self._directory = directory
        for name in ("host", "user"):
            keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
            subprocess.run(keygen, check=True)
        (directory / "keys").write_text((directory / "user.pub").read_text())
        (directory / "sshd_config").write_text(
            f"Port {PORT}\nHostKey {directory}/host\nUsePAM no\nAuthorizedKeysFile {directory}/keys\n"
            "StrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nPidFile none\nBanner none\nPrintMotd no\n"
        )
        (directory / "known_hosts").write_text(f"* {(directory / 'host.pub').read_text()}")
        (directory / "ssh_config").write_text("")
        client = tools / "ssh"
        client.write_text(f'#!/bin/sh\nexec {SSH} -F {directory}/ssh_config "$@"\n')
        client.chmod(0o755)

    def know(self, address: str, name: str) -> None:
        """Write the way to a host into the client's settings."""
        with (self._directory / "ssh_config").open("a") as stream:
            stream.write(
                f"Host {name}.fleet.test\n  HostName {address}\n  HostKeyAlias fleet\n  Port {PORT}\n"
                f"  IdentityFile {self._directory}/user\n  IdentityAgent none\n  IdentitiesOnly yes\n"
                f"  UserKnownHostsFile {self._directory}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
            )

    @contextlib.contextmanager
    def serving(self, names: Sequence[str]) -> Iterator[None]:
        """Start an sshd for each name, wait until it listens, and end all."""
        with contextlib.ExitStack() as stack:
            log = stack.enter_context((self._directory / "log").open("wb"))
            for number, name in enumerate(names):
                address = f"127.0.{2 + number // 200}.{1 + number % 200}"
                self.know(address, name)
                argv = [
                    *(
                        "unshare",
                        "--mount",
                        "--uts",
                        "--pid",
                        "--mount-proc",
                        "--fork",
                        "--kill-child",
                    ),
                    *("/bin/sh", "-c", SERVE, "serve"),
                    *(str(self._directory), name, address, str(SSHD)),
                ]
                server = stack.enter_context(subprocess.Popen(argv, stderr=log))
                stack.callback(server.kill)  # unshare heeds no other signal
                self._wait(server, address)
            yield

    def _wait(self, server: subprocess.Popen[bytes], address: str) -> None:
        deadline = Deadline.after(60)
        while not deadline.expired and server.poll() is None:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection((address, PORT)).close()
                return
            time.sleep(0.02)
        raise AssertionError((self._directory / "log").read_text())


@pytest.fixture
def fleet(field: Field) -> Fleet:  # noqa: F811 - the fixture
    field.pytester.makepyfile(CHECK)
    return Fleet(field.pytester.mkdir("fleet"), field.pytester.path / "tools")


def test_each_host_is_itself_and_those_that_are_away_cost_their_own_findings(
    field: Field,  # noqa: F811 - the fixture
    fleet: Fleet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there, away, silent = ["a", "b", "c", "d"], "refuses", "silent"
    monkeypatch.setenv("FAKE_NIX_HOSTS", " ".join([*there, away, silent]))
    fleet.know("127.0.9.1", away)
    fleet.know("127.0.9.2", silent)
    with socket.create_server(("127.0.9.2", PORT)), fleet.serving(there):
        result = field.run_hosts(
            *("--nixos-ssh", "root@{host}.fleet.test", "--nixos-boot-timeout", "8"),
            *("--nixos-report", "json:report.json"),
        )
    found = {(f["host"], f["control"]): f["outcome"] for f in field.report()["findings"]}
    assert {host for (host, _), outcome in found.items() if outcome == "passed"} == set(there)
    assert list(found.values()).count("passed") == 2 * len(there)
    assert {host for (host, _), outcome in found.items() if outcome == "error"} == {away, silent}
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    why = {name: host.get("failure", "") for name, host in field.report()["run"]["hosts"].items()}
    assert "refused" in why[away] and why[silent]
    assert not any(why[name] for name in there)


def sizes() -> list[int]:
    """Return how many hosts are tried: ``PYTEST_NIXOS_FLEETS=20,100,200``, some minutes."""
    return [int(size) for size in os.environ.get("PYTEST_NIXOS_FLEETS", "").split(",") if size]


@pytest.mark.skipif(not sizes(), reason="takes minutes; PYTEST_NIXOS_FLEETS=20,100,200 names sizes")
def test_time_is_linear_and_memory_bounded(
    field: Field,  # noqa: F811 - the fixture
    fleet: Fleet,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    # All hosts share this machine's file systems, which a wider profile would search for each.
    field.pytester.makeini("[pytest]\nnixos_catalogue = standards\n")
    (field.pytester.mkdir("standards") / "profiles").mkdir()
    (field.pytester.path / "standards/profiles/sysctls.toml").write_text(PROFILE)
    a_host_s = {}
    for size in sizes():
        names = [f"h{number:03}" for number in range(size)]
        monkeypatch.setenv("FAKE_NIX_HOSTS", " ".join(names))
        with fleet.serving(names):
            began_s = time.monotonic()
            field.run(
                *("--nixos-flake", ".", "--nixos-suite", "kernel-sysctl", "--nixos-profile"),
                *("sysctls", "--nixos-ssh", "root@{host}.fleet.test", "-q", "-q", "--no-summary"),
                *("--nixos-report", "json:report.json"),
                # It keeps the exception of each failed test, and by its frames all that was observed.
                *("-p", "no:rerunfailures"),
            )
            a_host_s[size] = (time.monotonic() - began_s) / size
        report = field.report()
        outcomes = Counter(finding["outcome"] for finding in report["findings"])
        assert len(report["run"]["hosts"]) == size
        assert outcomes["passed"] + outcomes["failed"] > 30 * size and not outcomes["error"]
        # The largest of all children so far: pytest and whatever it started.
        mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        record_property(f"{size} hosts", f"{a_host_s[size]:.2f} s a host, {mib:.0f} MiB")
        sys.stderr.write(f"\n{size} hosts: {a_host_s[size]:.2f} s a host, {mib:.0f} MiB\n")
        assert mib < 1024
    assert a_host_s[max(a_host_s)] < 1.5 * a_host_s[min(a_host_s)], a_host_s
