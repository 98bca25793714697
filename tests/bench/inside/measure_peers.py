"""Runs as a test beside the machine: the same commands and facts over four channels to one
guest.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import testinfra

from pytest_nixos.backend_name import BackendName
from pytest_nixos.plugin.stash import SESSION
from pytest_nixos.standards.judging.look import probes
from tests.bench.driver_shell import GUEST_END, DriverShell

QUICK = bool(os.environ.get("PYTEST_NIXOS_BENCH_QUICK"))
COMMANDS = {
    "true": 60,
    "cat /etc/hostname": 40,
    "readlink /run/current-system": 40,
    "systemctl show --property=ActiveState sshd.service": 20,
    "head -c 1000000 /dev/zero": 5,
    "head -c 20000000 /dev/zero": 3,
}
# The ssh backend opens a connection each time.
SLOW = {"ssh": 8}
SSHD_CONFIG = """
Port 22
PermitRootLogin prohibit-password
AuthorizedKeysFile /run/bench-ssh/authorized_keys
StrictModes no
UsePAM yes
PasswordAuthentication no
HostKey /run/bench-ssh/host_key
SetEnv PATH=/run/wrappers/bin:/run/current-system/sw/bin
"""


def test_peers(
    nixos_machine: Any,
    host: Any,
    nixos_observations: Any,
    nixos_host_config: Any,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    session = request.config.stash[SESSION]
    started_s = time.monotonic()
    asked = probes(session.controls, nixos_host_config, BackendName.VM)
    nixos_observations.prefetch(list(asked.values()))
    store_s = time.monotonic() - started_s
    over_ssh, over_paramiko = _ssh_hosts(nixos_machine, tmp_path)
    driver = DriverShell(os.environ["PYTEST_NIXOS_BENCH_CONSOLE"])
    assert nixos_machine.run(GUEST_END, timeout_s=60).succeeded
    driver.hello(limit_s=60)
    who: dict[str, Callable[[str], tuple[int, bytes]]] = {
        "channel": lambda command: _ours(nixos_machine, command),
        "driver": driver.execute,
        "paramiko": lambda command: _testinfra(over_paramiko, command),
        "ssh": lambda command: _testinfra(over_ssh, command),
    }
    commands = {c: _timed(c, count, who, driver) for c, count in COMMANDS.items()}
    facts = _facts_one_by_one({"channel": host, "ssh": over_ssh})
    texts = _texts_of_facts()
    started_s = time.monotonic()
    results = nixos_machine.run_many(texts)
    run_many_s = time.monotonic() - started_s
    assert len(results) == len(texts)
    driver.close()
    controls = sum(1 for control in session.controls if control.is_data)
    measured = {
        "commands": commands,
        "facts": {
            "count": len(FACTS),
            "controls": controls,
            "store_s": store_s,
            "run_many_s": run_many_s,
            "one_by_one_s": facts,
        },
    }
    Path(os.environ["PYTEST_NIXOS_BENCH_OUT"]).write_text(json.dumps(measured))


def _ours(machine: Any, command: str) -> tuple[int, bytes]:
    result = machine.run(command)
    return result.exit_status, result.stdout


def _testinfra(host: Any, command: str) -> tuple[int, bytes]:
    result = host.run(command)
    return result.rc, result.stdout_bytes


def _timed(
    command: str,
    count: int,
    who: dict[str, Callable[[str], tuple[int, bytes]]],
    driver: DriverShell,
) -> dict[str, list[float]]:
    """Give milliseconds by channel; the channels take turns so that all see the same load."""
    measured: dict[str, list[float]] = {name: [] for name in who}
    wanted = who["channel"](command)
    for number in range(2 if QUICK else count):
        for name, run in who.items():
            if number >= SLOW.get(name, count):
                continue
            started_s = time.monotonic()
            try:
                got = run(command)
            except (TimeoutError, ValueError):
                got = (-1, b"")
            if got == wanted:
                measured[name].append((time.monotonic() - started_s) * 1000)
                continue
            # QEMU throws a console's output away when its reader is slower than the guest.
            assert name == "driver", f"{name}: {command}: {got!r:.300} in place of {wanted!r:.300}"
            driver.again()
    return {name: values for name, values in measured.items() if values}


FACTS: tuple[Callable[[Any], object], ...] = (
    lambda host: host.file("/etc/hostname").content_string,
    lambda host: host.file("/etc/passwd").mode,
    lambda host: host.file("/etc/shadow").user,
    lambda host: host.file("/etc/ssh/sshd_config").exists,
    lambda host: host.file("/nix/store").is_directory,
    lambda host: host.sysctl("vm.swappiness"),
    lambda host: host.sysctl("kernel.dmesg_restrict"),
    lambda host: host.service("sshd").is_running,
    lambda host: host.service("nftables").is_running,
    lambda host: host.socket("tcp://0.0.0.0:22").is_listening,
    lambda host: host.user("root").shell,
    lambda host: host.check_output("uname -r"),
)


def _facts_one_by_one(hosts: dict[str, Any]) -> dict[str, float]:
    taken = dict.fromkeys(hosts, 0.0)
    for fact in FACTS:
        for name, host in hosts.items():
            started_s = time.monotonic()
            fact(host)
            taken[name] += time.monotonic() - started_s
    return taken


def _texts_of_facts() -> list[str]:
    """Say in commands what the facts above ask."""
    return [
        "cat /etc/hostname", "stat -c %a /etc/passwd", "stat -c %U /etc/shadow", "test -e /etc/ssh/sshd_config", "test -d /nix/store",
        "cat /proc/sys/vm/swappiness", "cat /proc/sys/kernel/dmesg_restrict", "systemctl is-active sshd", "systemctl is-active nftables",
        "cat /proc/net/tcp", "getent passwd root", "uname -r",
    ]  # fmt: skip


def _ssh_hosts(machine: Any, tmp_path: Path) -> tuple[Any, Any]:
    """Let root in by key: the host's own sshd program, with a configuration of the benchmark."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = (tmp_path / "key.pub").read_text()
    setup = (
        "set -e; mkdir -p /run/bench-ssh; cd /run/bench-ssh; cat > authorized_keys; "
        "systemctl stop sshd.socket sshd.service 2>/dev/null || true; mkdir -p /run/sshd; "
        "sshd=$(systemctl show --property=ExecStart --value sshd.service | grep -o '/[^ ;]*/sshd' | head -n 1); "
        '"${sshd%/*}/ssh-keygen" -q -t ed25519 -N "" -f host_key 2>/dev/null || '
        '"$(dirname "$sshd")/../bin/ssh-keygen" -q -t ed25519 -N "" -f host_key; '
        f"printf '%s' '{SSHD_CONFIG}' > config; "
        '"$sshd" -f /run/bench-ssh/config </dev/null'
    )
    done = machine.run(setup, stdin=public.encode(), timeout_s=120)
    assert done.succeeded, done.stderr_text
    port = os.environ["PYTEST_NIXOS_BENCH_PORT"]
    config = tmp_path / "config"
    config.write_text(
        "Host *\n  User root\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n"
        f"  LogLevel ERROR\n  IdentityFile {key}\n  IdentitiesOnly yes\n"
    )
    where = f"root@127.0.0.1:{port}?ssh_config={config}&ssh_identity_file={key}"
    over_ssh = testinfra.get_host(f"ssh://{where}")
    over_paramiko = testinfra.get_host(f"paramiko://{where}")
    deadline_s = time.monotonic() + 60
    while over_ssh.run("true").rc != 0:
        assert time.monotonic() < deadline_s, over_ssh.run("true").stderr
        time.sleep(1)
    assert over_paramiko.run("true").rc == 0
    return over_ssh, over_paramiko
