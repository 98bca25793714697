"""A member that does not listen yet, and a JetStream group of members that were saved apart, are no
fault of the host's.
"""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from checks.nats import test_nats as check
from checks.nats.client import NatsError
from pytest_nixos import Deadline, TransportError

NAMES = ("nats-1", "nats-2", "nats-3")


def cluster(*, clones: bool) -> Any:
    return {name: SimpleNamespace(can_reset=clones) for name in NAMES}


@pytest.mark.parametrize(
    ("clones", "port", "sizes", "apart"),
    [
        (True, 8222, (2, 2, None), True),
        (True, 8222, (3, 3, 3), False),
        (True, None, (), True),
        (False, 8222, (2, 2, None), False),
    ],
    ids=["founded by two", "founded by all", "nobody tells", "booted together"],
)
def test_apart(
    monkeypatch: pytest.MonkeyPatch,
    clones: bool,
    port: int | None,
    sizes: tuple[int | None, ...],
    apart: bool,
) -> None:
    told = dict(zip(NAMES, sizes, strict=False))

    def ask(_cluster: Any, name: str, _port: int, path: str) -> dict[str, Any]:
        assert path == "/jsz"
        size = told[name]
        return {} if size is None else {"meta_cluster": {"cluster_size": size}}

    monkeypatch.setattr(check, "_ask", ask)

    assert check._founded_apart(cluster(clones=clones), port) is apart


class Starting(dict[str, Any]):
    """A cluster whose members refuse the first two clients."""

    def __init__(self) -> None:
        super().__init__({name: SimpleNamespace(run=None) for name in NAMES})
        self.asked = 0

    def connect(self, name: str, port: int, *, timeout_s: float) -> socket.socket:
        self.asked += 1
        if self.asked <= 2:
            raise TransportError(f"{name}: no connection to TCP port {port}", remedy="wait")
        here, there = socket.socketpair()
        there.close()
        return here


class Client:
    """A client whose messages arrive at once."""

    def __init__(self, connection: socket.socket, _login: Any) -> None:
        self._connection = connection

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._connection.close()

    def open(self, _deadline: Any) -> None: ...

    def subscribe(self, _subject: str, _deadline: Any) -> None: ...

    def publish(self, _subject: str, _data: bytes, _deadline: Any) -> None: ...

    def receive(self, _deadline: Any) -> bytes:
        return b"hello"


@pytest.fixture
def starting(monkeypatch: pytest.MonkeyPatch) -> Starting:
    monkeypatch.setattr("time.sleep", lambda _s: None)
    monkeypatch.setattr(check, "NatsClient", Client)
    monkeypatch.setattr(check, "_deadline", lambda _cluster, limit_s: Deadline.after(limit_s))
    return Starting()


def test_a_member_that_does_not_listen_yet_is_waited_for(
    starting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pytest_nixos.observe.systemd.waiting.is_hopeless", lambda _run, _unit: False
    )
    assert check._Bus(starting, 4222, {}).message("nats-1", "nats-3") == "from nats-1 to nats-3"


def test_a_member_whose_unit_has_failed_is_not(
    starting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pytest_nixos.observe.systemd.waiting.is_hopeless", lambda _run, _unit: True
    )
    starting.asked = -10
    with pytest.raises(NatsError, match="nats-3: no connection to TCP port 4222"):
        check._Bus(starting, 4222, {}).message("nats-1", "nats-3")
