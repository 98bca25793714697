"""Work in another process's network namespace, with the real kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from pytest_nixos.errors import TransportError
from pytest_nixos.local.namespace import Leader, in_network_of
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.container.strategy import NspawnStrategy
from pytest_nixos.machine.network.scan import LinkAddresses

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and util-linux"
)


def network(thread: int) -> str:
    return str(Path(f"/proc/{thread}/ns/net").readlink())


@pytest.fixture
def elsewhere() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["unshare", "--net", "sleep", "1000"]) as process:
        own = network(os.getpid())
        there = poll(
            lambda: True if network(process.pid) != own else None, deadline=Deadline.after(60)
        )
        assert there
        yield process
        process.kill()


def test_sockets_are_made_in_that_network(elsewhere: subprocess.Popen[bytes]) -> None:
    inside = network(elsewhere.pid)

    def look() -> str:
        return network(threading.get_native_id())

    assert in_network_of(elsewhere.pid, look) == inside
    assert look() != inside


def test_a_process_that_ended_is_told(elsewhere: subprocess.Popen[bytes]) -> None:
    leader = Leader(elsewhere.pid)
    elsewhere.kill()
    assert leader.wait_ended(5)
    elsewhere.wait()
    leader.close()
    with pytest.raises(TransportError, match="cannot be entered"):
        in_network_of(elsewhere.pid, lambda: None)


@pytest.fixture
def late(elsewhere: subprocess.Popen[bytes]) -> Iterator[tuple[int, threading.Thread]]:
    """A process that leaves the network of another one late, and gets its link later still; as process 1
    of a container does.
    """
    entered = ("nsenter", f"--net=/proc/{elsewhere.pid}/ns/net", "--")
    for words in ("add eth0 type veth peer name outside0", "set outside0 up"):
        subprocess.run([*entered, "ip", "link", *words.split()], check=True)
    leaving = "sleep 0.3; exec unshare --net sleep 1000"
    with subprocess.Popen([*entered, "bash", "-c", leaving]) as process:
        around = network(elsewhere.pid)
        there = poll(
            lambda: True if network(process.pid) == around else None,
            deadline=Deadline.after(60),
            interval_s=0.01,
        )
        assert there

        def move() -> None:
            assert poll(
                lambda: True if network(process.pid) != around else None,
                deadline=Deadline.after(60),
            )
            time.sleep(0.3)
            words = ("ip", "link", "set", "eth0", "netns", str(process.pid))
            subprocess.run([*entered, *words], check=True)

        moving = threading.Thread(target=move)
        moving.start()
        yield process.pid, moving
        moving.join()
        process.kill()


def test_the_link_of_a_container_is_waited_for(
    late: tuple[int, threading.Thread], elsewhere: subprocess.Popen[bytes]
) -> None:
    own = IPv4Interface("10.233.0.2/24")
    link = LinkAddresses(outside=own, guest=own, target=own.ip)
    pid, moving = late
    NspawnStrategy(SubprocessRunner(), os.environ).address(pid, elsewhere.pid, link)
    moving.join()
    inside = ("nsenter", f"--net=/proc/{pid}/ns/net", "--", "ip", "addr", "show", "eth0")
    shown = subprocess.run(inside, check=True, capture_output=True, text=True).stdout
    assert "10.233.0.2/24" in shown and ",UP" in shown
