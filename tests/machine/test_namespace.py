"""Work in another process's network namespace, with the real kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.errors import TransportError
from pytest_nixos.local.namespace import Leader, in_network_of
from pytest_nixos.local.timing import Deadline, poll

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
            lambda: True if network(process.pid) != own else None, deadline=Deadline.after(5)
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
