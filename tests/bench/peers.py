"""One command, throughput and facts over our channel, testinfra's ssh and paramiko backends and
the test driver's shell.
"""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.figures import Bar, Goal, Sample, Section, at_least
from tests.bench.rig import PROFILES, Plan, measure_inside, say

NAMES = {
    "channel": "pytest-nixos",
    "driver": "test driver's shell protocol",
    "paramiko": "testinfra, paramiko backend",
    "ssh": "testinfra, ssh backend as it is",
}


def measure(home: Path, plan: Plan) -> tuple[Section, Section]:
    say("peers: one machine with sshd and a second console")
    say("peers: without goss, which no registry has that is reached here (Debian, PyPI, npm)")
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="bn-") as directory:  # a socket's path is short
        console = f"{directory}/hvc"
        environment = {
            "QEMU_NET_OPTS": f"hostfwd=tcp:127.0.0.1:{port}-:22",
            "QEMU_OPTS": (
                f"-device virtio-serial-pci,id=bench -chardev socket,id=bench,path={console},server=on,wait=off "
                "-device virtconsole,bus=bench.0,chardev=bench"
            ),
            "PYTEST_NIXOS_BENCH_PORT": str(port),
            "PYTEST_NIXOS_BENCH_CONSOLE": console,
        }
        measured = measure_inside(
            home,
            "measure_peers.py",
            "--nixos-snapshot",
            "off",
            *PROFILES,
            plan=plan,
            environment=environment,
        )
    return _commands(measured), _facts(measured["facts"])


def _commands(measured: dict[str, Any]) -> Section:
    samples: dict[str, dict[str, Sample]] = {
        command: {who: Sample(values=tuple(values), unit="ms") for who, values in of.items()}
        for command, of in measured["commands"].items()
    }
    rows = [
        (f"`{command}`", *(str(of[who]) if who in of else "output lost" for who in NAMES))
        for command, of in samples.items()
    ]
    true = samples["true"]
    cat = samples["cat /etc/hostname"]
    program = samples["readlink /run/current-system"]
    goals = [
        at_least("`true` against testinfra's ssh", true["ssh"].median / true["channel"].median, 20, reason="-"),
        at_least("`cat` of a short file against testinfra's ssh", cat["ssh"].median / cat["channel"].median, 20, reason="-"),
        at_least("`true` against the test driver's protocol", true["driver"].median / true["channel"].median, 3,
                 reason="both fork once in the guest; the driver pays for base64 and a second line"),
        at_least("`cat` of a short file against the test driver's protocol", cat["driver"].median / cat["channel"].median, 3,
                 reason="both fork once in the guest; the driver pays for base64 and a second line"),
        at_least("a program (`readlink`) against the test driver's protocol", program["driver"].median / program["channel"].median, 3,
                 reason="starting the program in the emulated guest is most of the time on both sides"),
    ]  # fmt: skip
    return Section(
        name="peers",
        title="One command, and throughput",
        lead=(
            "The same guest, commands in turn. testinfra's ssh backend as it is opens a connection for each command (it asks for a control master without a "
            "path for it); paramiko keeps one. The test driver's protocol is spoken by 60 lines of our own (`tests/bench/driver_shell.py`): root's bash on hvc0, "
            "output through base64, the exit status by a second line, as nixpkgs' `test-instrumentation.nix` and `machine.py` do it; it carries standard output only, and QEMU throws "
            "output of a console away when its reader is slower than the guest. "
            "The others carry both streams and the exit status."
        ),
        header=("command", *NAMES.values()),
        rows=tuple(rows),
        goals=tuple(goals),
        bars=tuple(
            Bar(label=name, value=cat[who].median, ours=who == "channel")
            for who, name in NAMES.items()
        ),
        bars_title="cat of a short file in the guest",
        bars_unit="ms",
    )


def _facts(facts: dict[str, Any]) -> Section:
    count = facts["count"]
    store_s, many_s, one_by_one = facts["store_s"], facts["run_many_s"], facts["one_by_one_s"]
    rows = [
        (f"all facts of {facts['controls']} data controls, observation store (one round trip)", f"{store_s:.2f} s", f"{store_s / facts['controls'] * 1000:.1f} ms"),
        (f"{count} facts, testinfra over our channel", f"{one_by_one['channel']:.2f} s", f"{one_by_one['channel'] / count * 1000:.1f} ms"),
        (f"the commands of {count} facts, `run_many` (one round trip)", f"{many_s:.2f} s", f"{many_s / count * 1000:.1f} ms"),
        (f"{count} facts, testinfra over ssh", f"{one_by_one['ssh']:.2f} s", f"{one_by_one['ssh'] / count * 1000:.1f} ms"),
        (f"extrapolated from those {count}: {facts['controls']} facts, testinfra over ssh", f"{one_by_one['ssh'] / count * facts['controls']:.0f} s", ""),
    ]  # fmt: skip
    ssh_s = one_by_one["ssh"] / count * facts["controls"]
    return Section(
        name="facts",
        title="Facts: observed together, and one by one",
        lead=(
            f"{count} facts (file contents and modes, sysctls, services, sockets, users) read by testinfra's own modules one by one, over our channel and over "
            "its ssh backend; and what the plugin reads for the data controls that nine profiles together select, most of which need more than one fact. goss is not among them: it is a Go program, which none of the registries has that a run here reaches (Debian, PyPI, npm)."
        ),
        header=("what", "in all", "each"),
        rows=tuple(rows),
        goals=(
            Goal(
                wanted="observing together is faster than one by one over ssh",
                got=f"{ssh_s / store_s:.0f} times (extrapolated)",
                reached=store_s < ssh_s,
                reason="-",
            ),
        ),
        bars=(
            Bar(label="observation store, all facts", value=store_s, ours=True),
            Bar(label="testinfra over ssh (extrapolated)", value=ssh_s, ours=False),
        ),
        bars_title=f"Facts of {facts['controls']} controls",
        bars_unit="s",
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
