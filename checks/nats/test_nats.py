"""NATS clusters: the hosts that the declared routes name are started on one network, and have to
find each other.

The machines are containers, or VMs where there is no root, with the hosts' declared addresses; what
is asked of them comes from another machine on that network.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nixos import (
    Deadline,
    Evidence,
    Flake,
    HostConfig,
    NixosError,
    not_applicable,
    observe,
    poll,
)

from .client import NatsClient, NatsError
from .members import credentials, members, monitor_port

if TYPE_CHECKING:
    import socket

    from pytest_nixos import Cluster

_UNIT = "nats.service"
_FORMED_S = 45.0
_MESSAGE_S = 10.0
# Elections after the loss of a leader take up to nine seconds.
_RECOVERED_S = 60.0

Json = Any


@pytest.fixture(scope="module")
def settings(nixos_host_config: HostConfig) -> Mapping[str, Json]:
    """``services.nats.settings`` of the host."""
    declared = nixos_host_config.option("services.nats.settings")
    if not declared.present or not (declared.value or {}).get("cluster"):
        not_applicable("the host is in no NATS cluster")
    settings: Mapping[str, Json] = declared.value
    return settings


@pytest.fixture(scope="module")
def names(
    settings: Mapping[str, Json], nixos_host_config: HostConfig, nixos_flake: Flake
) -> tuple[str, ...]:
    """The hosts of the flake that form the cluster."""
    found, unknown = members(nixos_host_config.name, settings, nixos_flake.hosts())
    if unknown:
        not_applicable(f"the flake has no host of the declared routes {', '.join(unknown)}")
    if len(found) < 2:
        not_applicable("the declared routes name no other host of the flake")
    return found


@pytest.fixture(scope="module")
def cluster(names: tuple[str, ...], nixos_cluster: Callable[..., Cluster]) -> Cluster:
    """The running cluster."""
    return nixos_cluster(*names)


@pytest.mark.nixos_control("NATS-002")
def test_every_node_has_a_route_to_every_other(
    cluster: Cluster, settings: Mapping[str, Json], nixos_evidence: Evidence
) -> None:
    port = monitor_port(settings)
    if port is None:
        not_applicable("services.nats.settings.http_port is not set, so routes cannot be asked for")
    expected = {name: sorted(set(cluster) - {name}) for name in cluster}
    nixos_evidence.expect(expected)
    server_names: dict[str, str] = {}

    def look() -> dict[str, list[str]] | None:
        for name in cluster:
            server_names[_server_id(cluster, name, port)] = name
        found = {name: _routes(cluster, name, port, server_names) for name in cluster}
        last.update(found)
        failed = any(observe.is_hopeless(cluster[name].run, _UNIT) for name in cluster)
        return found if failed or found == expected else None

    last: dict[str, list[str]] = {}
    poll(look, deadline=_deadline(cluster, _FORMED_S), interval_s=1.0)
    nixos_evidence.observe(last)
    if last != expected:
        for name in cluster:
            nixos_evidence.attach(f"journal of {name}", _journal(cluster, name))
    missing = {
        n: sorted(set(expected[n]) - set(last[n])) for n in expected if last[n] != expected[n]
    }
    assert not missing, f"no route after {_FORMED_S:g} s: {missing}"


@pytest.mark.nixos_control("NATS-009")
def test_messages_pass_and_a_stream_survives_the_loss_of_a_node(
    cluster: Cluster, settings: Mapping[str, Json], nixos_evidence: Evidence
) -> None:
    login = credentials(settings)
    if login is None:
        not_applicable("clients need a certificate or a key, which this check does not have")
    bus = _Bus(cluster, int(settings.get("port", 4222)), login)
    first, *_, last = cluster
    nixos_evidence.expect({"message": f"from {last} to {first}", "stream": _stream_plan(cluster)})
    seen: dict[str, str] = {}
    try:
        seen["message"] = bus.message(last, first)
        nixos_evidence.observe(seen)
        if settings.get("jetstream") and len(cluster) >= 3:
            seen["stream"] = bus.survive()
        nixos_evidence.observe(seen)
    except NatsError as err:
        nixos_evidence.observe({**seen, "failed": str(err)})
        for name in cluster:
            nixos_evidence.attach(f"journal of {name}", _journal(cluster, name))
        if "message" in seen and _founded_apart(cluster, monitor_port(settings)):
            not_applicable(
                "the members come from snapshots, each saved while it was alone: JetStream's group was founded without all of "
                f"them ({err}); boot them together: --nixos-snapshot off"
            )
        pytest.fail(str(err), pytrace=False)


class _Bus:
    """The cluster, as its clients use it."""

    def __init__(self, cluster: Cluster, port: int, login: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._port = port
        self._login = login
        self._stream = f"PYTEST_NIXOS_{uuid.uuid4().hex[:12]}"

    def message(self, sender: str, receiver: str) -> str:
        """Send a message from a client of one member to a client of another; tries until they listen
        and routes have formed.
        """
        subject = f"pytest-nixos.{uuid.uuid4().hex}"
        deadline = _deadline(self._cluster, _FORMED_S)
        self._await_listening(receiver, deadline)
        self._await_listening(sender, deadline)
        with self._client(receiver) as inbound, self._client(sender) as outbound:
            inbound.subscribe(subject, deadline)
            while True:
                outbound.publish(subject, b"hello", deadline)
                try:
                    payload = inbound.receive(Deadline.after(min(1.0, deadline.remaining_s)))
                except NatsError:
                    if deadline.expired:
                        raise NatsError(
                            f"no message from {sender} to {receiver} within {_FORMED_S:g} s"
                        ) from None
                    continue
                return f"from {sender} to {receiver}" if payload == b"hello" else repr(payload)

    def survive(self) -> str:
        """Store a message in a stream of three replicas, cut its leader off, and read it from
        another member.
        """
        first = next(iter(self._cluster))
        config = {
            "name": self._stream,
            "subjects": [f"{self._stream}.>"],
            "num_replicas": 3,
            "storage": "file",
        }
        created = self._api(first, f"$JS.API.STREAM.CREATE.{self._stream}", config)
        leader = str((created.get("cluster") or {}).get("leader") or "")
        lost = self._host_of(leader)
        stored = self._api(first, f"{self._stream}.one", b"kept")
        if stored.get("seq") != 1:
            raise NatsError(f"the stream did not take a message: {stored}")
        other = next(name for name in self._cluster if name != lost)
        self._cluster.cut(lost)
        try:
            found = self._api(other, f"$JS.API.STREAM.MSG.GET.{self._stream}", {"seq": 1})
        finally:
            self._cluster.mend(lost)
        if (found.get("message") or {}).get("data") != "a2VwdA==":  # "kept"
            raise NatsError(f"without {lost}, {other} gives {found}")
        self._api(other, f"$JS.API.STREAM.DELETE.{self._stream}", None)
        return "readable without its leader"

    def _api(self, name: str, subject: str, body: Json) -> Mapping[str, Json]:
        """Ask until there is an answer without error: leaders have to be elected first."""
        last: list[str] = ["no answer"]

        def ask() -> Mapping[str, Json] | None:
            try:
                with self._client(name) as client:
                    answer = client.request(subject, body, Deadline.after(_MESSAGE_S))
            except NatsError as err:
                last[0] = str(err)
                return None
            last[0] = str(answer.get("error"))
            return None if answer.get("error") else answer

        answer = poll(ask, deadline=_deadline(self._cluster, _RECOVERED_S), interval_s=1.0)
        if answer is None:
            raise NatsError(f"{subject} at {name}, for {_RECOVERED_S:g} s: {last[0]}")
        return answer

    def _await_listening(self, name: str, deadline: Deadline) -> None:
        """Wait until a member takes clients: its unit is active when the program starts (Type=simple),
        and the program begins with JetStream and its routes. A client that gets no connection then
        tells why.
        """

        def listens() -> bool | None:
            try:
                self._connect(name).close()
            except NatsError:
                return None
            return True

        observe.poll_service(self._cluster[name].run, _UNIT, listens, deadline=deadline)

    def _connect(self, name: str) -> socket.socket:
        try:
            return self._cluster.connect(name, self._port, timeout_s=_MESSAGE_S)
        except NixosError as err:
            raise NatsError(err.message) from err

    def _client(self, name: str) -> NatsClient:
        deadline = Deadline.after(_MESSAGE_S)
        connection = self._connect(name)
        client = NatsClient(connection, self._login)
        try:
            client.open(deadline)
        except NatsError:
            connection.close()
            raise
        return client

    def _host_of(self, server: str) -> str:
        for name in self._cluster:
            with self._client(name) as client:
                if client.info.get("server_name") == server:
                    return name
        raise NatsError(f"the stream's leader is {server!r}, which is none of the cluster")


def _stream_plan(cluster: Cluster) -> str:
    return "readable without its leader" if len(cluster) >= 3 else "needs three members"


def _server_id(cluster: Cluster, name: str, port: int) -> str:
    return str(_ask(cluster, name, port, "/varz").get("server_id", name))


def _routes(cluster: Cluster, name: str, port: int, server_names: Mapping[str, str]) -> list[str]:
    # Servers pool routes: several connections to one neighbour.
    routes = _ask(cluster, name, port, "/routez").get("routes") or []
    remote = {str(route.get("remote_id")) for route in routes}
    return sorted({server_names.get(server, server) for server in remote})


def _ask(cluster: Cluster, name: str, port: int, path: str) -> Mapping[str, Json]:
    """Ask a member's monitoring port on the member itself: it need not be open to others."""
    probe = observe.http([f"http://127.0.0.1:{port}{path}"], timeout_s=5.0)
    (answer,) = observe.observe(cluster[name].run, probe)
    try:
        document = json.loads(answer.text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _founded_apart(cluster: Cluster, port: int | None) -> bool:
    """Whether JetStream's group may lack members because the machines were saved one by one.

    A group has the members that are known when it is founded, and keeps that number (``cluster_size``
    of the monitoring port's ``/jsz``).
    """
    if not any(machine.can_reset for machine in cluster.values()):
        return False
    if port is None:
        return True
    groups = [_ask(cluster, name, port, "/jsz").get("meta_cluster") or {} for name in cluster]
    return any(group.get("cluster_size") != len(cluster) for group in groups)


def _journal(cluster: Cluster, name: str) -> str:
    return cluster[name].run("journalctl --quiet --no-pager --unit=nats -n 30").stdout_text


def _deadline(cluster: Cluster, limit_s: float) -> Deadline:
    return next(iter(cluster.values())).deadline(limit_s)
