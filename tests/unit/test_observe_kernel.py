"""Sysctls, sockets, mounts and swap: parsers on kernel text, scripts on the kernel that runs the tests."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.observe.base import ProbeOutput, observe
from pytest_nixos.observe.mount import mounts, parse_mountinfo
from pytest_nixos.observe.socket import Protocol, parse_sockets, sockets
from pytest_nixos.observe.swap import swap
from pytest_nixos.observe.sysctl import normalise_sysctl, sysctl_path, sysctl_tree, sysctls


def here(command: str) -> CommandResult:
    """Run `command` on this machine as a guest would."""
    done = SubprocessRunner().run(["bash", "-c", command], deadline=Deadline.after(20))
    return CommandResult(
        command=command,
        exit_status=done.exit_status,
        stdout=done.stdout,
        stderr=done.stderr,
        duration_s=0.0,
    )


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("vm.swappiness", "/proc/sys/vm/swappiness"),
        ("net.ipv4.conf.eth0/100.rp_filter", "/proc/sys/net/ipv4/conf/eth0.100/rp_filter"),
        ("net/ipv4/conf/eth0.100/rp_filter", "/proc/sys/net/ipv4/conf/eth0.100/rp_filter"),
    ],
)
def test_keys_become_paths_as_sysctl_finds_them(key: str, path: str) -> None:
    assert sysctl_path(key) == path


def test_sysctls_are_read_and_missing_ones_told() -> None:
    keys = ["kernel.ostype", "net.ipv4.tcp_rmem", "no.such/key", "kernel.$(echo pid_max)"]
    values = observe(here, sysctls(keys))
    assert values["kernel.ostype"] == "Linux"
    assert values["net.ipv4.tcp_rmem"] == Path("/proc/sys/net/ipv4/tcp_rmem").read_text().rstrip(
        "\n"
    )
    assert (values["no.such/key"], values["kernel.$(echo pid_max)"]) == (None, None)
    assert normalise_sysctl(values["net.ipv4.tcp_rmem"] or "").count(" ") == 2


def test_a_tree_of_sysctls() -> None:
    values = observe(here, sysctl_tree("net.ipv4.conf.lo"))
    assert values["net.ipv4.conf.lo.forwarding"] in ("0", "1")
    assert all(key.startswith("net.ipv4.conf.lo.") for key in values)


TABLES = """=tcp
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 11 1
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1
   2: 0F02000A:0016 0202000A:D2F0 01 00000000:00000000 00:00000000 00000000     0        0 13 1
   3: truncated
=tcp6
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14 1
   1: 00000000000000000000000000000000:2CAA 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000   900        0 15 1
   2: 0000000000000000FFFF00000F02000A:2CAA 0000000000000000FFFF00000202000A:0001 01 00000000:00000000 00:00000000 00000000   900        0 16 1
=udp
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
   0: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   990        0 17 2 0 0
=unix
Num       RefCount Protocol Flags    Type St Inode Path
0000: 00000002 00000000 00010000 0001 01 18 /run/a b.sock
0000: 00000003 00000000 00000000 0001 03 19 /run/a b.sock
0000: 00000002 00000000 00000000 0002 01 20
=bindv6only 0
=owners
/proc/77/fd/3 socket:[15]
/proc/1/fd/9 socket:[15]
=cgroups
77 /system.slice/ollama.service .ollama-wrapped
1 /init.scope systemd
"""


def test_listening_sockets_with_their_addresses() -> None:
    found = parse_sockets(TABLES)
    assert found.reachable_ports(Protocol.TCP) == [22, 11434]
    assert found.reachable_ports(Protocol.UDP) == []
    # Port 22 has an IPv4 socket of its own, so its IPv6 socket cannot take IPv4.
    assert found.addresses(Protocol.TCP, 22) == ["0.0.0.0", "::"]
    assert [s.dual_stack for s in found.listening(Protocol.TCP) if s.address == "::"] == [
        False,
        True,
    ]
    assert found.addresses(Protocol.TCP, 11434) == ["0.0.0.0", "::"]
    assert found.has_ipv6


def test_connected_sockets_show_ipv4_in_ipv6_as_ipv4() -> None:
    peers = [(s.address, s.peer) for s in parse_sockets(TABLES).inet if s.peer]
    assert peers == [("10.0.2.15", ("10.0.2.2", 54000)), ("10.0.2.15", ("10.0.2.2", 1))]


def test_unix_sockets_keep_blanks_in_their_paths() -> None:
    found = parse_sockets(TABLES).unix
    assert [(s.path, s.listening, s.connected) for s in found] == [
        ("/run/a b.sock", True, False),
        ("/run/a b.sock", False, True),
    ]


def test_owners_are_named_with_their_units() -> None:
    found = parse_sockets(TABLES)
    assert found.units(Protocol.TCP, 11434) == ["init.scope", "ollama.service"]
    assert found.owners[15][1].comm == ".ollama-wrapped"


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_real_socket_and_its_owner_are_found(listening: int) -> None:
    found = observe(here, sockets(owners=True))
    assert found.addresses(Protocol.TCP, listening) == ["127.0.0.1"]
    assert listening not in found.reachable_ports(Protocol.TCP)
    inode = next(s.inode for s in found.listening(Protocol.TCP) if s.port == listening)
    assert [owner.comm for owner in found.owners[inode]] != []


MOUNTINFO = r"""285 1 0:60 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/a
290 285 0:60 /nix/store /nix/store rw - overlay overlay rw
291 290 0:60 /nix/store /nix/store ro - overlay overlay rw
292 285 0:70 / /mnt/with\040blank rw - tmpfs tmpfs ro
293 285 0:66 /systemd/inaccessible/dir /home ro,nosuid - tmpfs tmpfs rw
broken
""".splitlines()


def test_the_topmost_mount_counts() -> None:
    table = parse_mountinfo(MOUNTINFO)
    assert table.is_read_only("/nix/store/abc")
    assert not table.is_read_only("/nix")
    assert not table.is_read_only("/nix/store-of-another-name")
    assert table.is_read_only("/mnt/with blank/x")
    assert table.is_inaccessible("/home/alice")
    assert not table.is_inaccessible("/homes")


def test_real_mounts() -> None:
    found = observe(here, mounts()).at("/proc")
    assert found is not None
    assert found.filesystem == "proc"


SWAP = b"""=swaps
Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority
/dev/zram0                              partition\t503804\t\t12\t\t5
/var/my\\040swap                         file\t\t1024\t\t0\t\t-2
odd
=meminfo
MemTotal:        1007612 kB
HugePages_Total:       3
=zram zram0
disksize 515899392
comp_algorithm lzo lzo-rle lz4 [zstd]
mm_stat 4096 74 12288 0 12288 0 0 0 0
=zram zram1
disksize 0
"""


def test_swap_and_zram() -> None:
    found = swap().parse(ProbeOutput(stdout=SWAP, exit_status=0))
    area = found.area_of("zram0")
    assert area is not None
    assert (area.size_bytes, area.priority, area.is_zram) == (503804 * 1024, 5, True)
    assert [a.path for a in found.areas] == ["/dev/zram0", "/var/my swap"]
    first, second = found.zram
    assert (first.algorithm, first.disk_size_bytes, first.memory_used_bytes) == (
        "zstd",
        515899392,
        12288,
    )
    assert first.memory_limit_bytes is None
    assert second.disk_size_bytes == 0
    assert (found.memory_bytes, found.meminfo["HugePages_Total"]) == (1007612 * 1024, 3)


def test_real_memory() -> None:
    assert observe(here, swap()).memory_bytes > 1 << 26
