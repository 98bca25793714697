"""Mutual TLS: a stranger on the same network, without a certificate, gets nowhere."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nixos import (
    Deadline,
    Evidence,
    HostConfig,
    NixosError,
    not_applicable,
    observe,
)

from .stranger import nats_answer

if TYPE_CHECKING:
    from pytest_nixos import Cluster

_INTERFACE = "eth0"
_LISTENING_S = 30.0
_ANSWER_S = 10.0


@pytest.mark.nixos_rests_on("unit:nats.service")
@pytest.mark.nixos_control("TLS-005")
def test_nats_refuses_clients_without_certificate(
    nixos_host_config: HostConfig,
    nixos_cluster: Callable[..., Cluster],
    nixos_evidence: Evidence,
) -> None:
    settings = nixos_host_config.option("services.nats.settings").value or {}
    port = int(settings.get("port", 4222))
    if _is_loopback(settings):
        not_applicable("NATS listens on the loopback address only")
    if not nixos_host_config.firewall.allows_tcp(port, interface=_INTERFACE):
        not_applicable(f"the firewall keeps TCP {port} closed to the network")
    name = nixos_host_config.name
    cluster = nixos_cluster(name)
    nixos_evidence.expect("refused for want of a certificate")
    last = ["no connection"]

    def try_it() -> bool | None:
        try:
            with cluster.connect(name, port, timeout_s=_ANSWER_S) as connection:
                refused, last[0] = nats_answer(connection, Deadline.after(_ANSWER_S))
        except NixosError as err:
            last[0] = err.message
            return None  # not listening yet
        return refused

    refused = observe.poll_service(
        cluster[name].run, "nats.service", try_it, deadline=cluster[name].deadline(_LISTENING_S)
    )
    nixos_evidence.observe(last[0])
    if refused is None:
        journal = cluster[name].run("journalctl --quiet --no-pager --unit=nats -n 30")
        nixos_evidence.attach("journal of nats", journal.stdout_text)
    assert refused is not None, f"NATS does not answer: {last[0]}"
    assert refused, f"a stranger without a certificate is let in: {last[0]}"


def _is_loopback(settings: Mapping[str, Any]) -> bool:
    host = str(settings.get("host") or settings.get("net") or "")
    listen = str(settings.get("listen") or "")
    text = (host or listen.rpartition(":")[0]).strip("[]")
    if text == "localhost":
        return True
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False
