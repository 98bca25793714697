"""Ollama readiness: the model server is up, answers, and is where the host declares it, and
nowhere else.

The API is documented at https://github.com/ollama/ollama/blob/main/docs/api.md.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from pytest_nixos import (
    Deadline,
    Evidence,
    HostConfig,
    Machine,
    Observations,
    OllamaSettings,
    PortState,
    not_applicable,
    observe,
)

_UNIT = "ollama.service"
pytestmark = pytest.mark.nixos_rests_on(f"unit:{_UNIT}")
# A cold model directory on a slow disk; Ollama itself listens within a second or two.
_READY_LIMIT_S = 120.0
_ANSWER_LIMIT_S = 5.0
_LAST_PORT = 65535
_ALL_ADDRESSES = ("", "0.0.0.0", "::", "[::]")  # noqa: S104 - compared, not bound


@pytest.fixture(scope="module")
def declared(nixos_host_config: HostConfig) -> OllamaSettings:
    """What the host declares."""
    if nixos_host_config.ollama is None:
        not_applicable("the host declares no services.ollama")
    return nixos_host_config.ollama


@pytest.fixture(scope="module")
def ready(
    declared: OllamaSettings,
    nixos_machine: Machine,
    nixos_progress: Callable[[str], None],
) -> observe.HttpAnswer:
    """Wait, at most two minutes and not for a unit that has failed, until the API answers; the
    last answer either way.
    """
    deadline = nixos_machine.deadline(_READY_LIMIT_S)
    last = [_ask(nixos_machine, declared, "/api/version")]

    def answered() -> bool | None:
        if last[0].succeeded:
            return True
        nixos_progress(
            f"Ollama does not answer yet ({deadline.elapsed_s:.0f} s): {last[0].failure}"
        )
        last[0] = _ask(nixos_machine, declared, "/api/version")
        return True if last[0].succeeded else None

    observe.poll_service(nixos_machine.run, _UNIT, answered, deadline=deadline)
    return last[0]


@pytest.fixture(scope="module")
def from_outside(
    declared: OllamaSettings,
    ready: observe.HttpAnswer,  # noqa: ARG001 - what has not begun to listen cannot be reached
    nixos_machine: Machine,
) -> Iterator[Future[PortState]]:
    """What a stranger gets at its port; other tests run meanwhile, since silence takes seconds to
    tell.
    """

    def probe() -> PortState:
        if declared.port > _LAST_PORT:
            return PortState.CLOSED
        return nixos_machine.probe_tcp([declared.port])[declared.port]

    with ThreadPoolExecutor(1, "nixos-outside") as pool:
        yield pool.submit(probe)


@pytest.mark.nixos_control("OLL-001")
def test_unit_is_up(
    declared: OllamaSettings,  # noqa: ARG001 - not applicable without it
    nixos_observations: Observations,
    nixos_evidence: Evidence,
) -> None:
    state = nixos_observations.of(observe.units([_UNIT]))[_UNIT]
    nixos_evidence.expect("active")
    nixos_evidence.observe(f"{state.get('ActiveState')} ({state.get('SubState')})")
    if not state.is_running:
        journal = nixos_observations.of(observe.journal(_UNIT))
        nixos_evidence.attach(f"journal of {_UNIT}", "\n".join(journal))
    assert state.is_running, f"{_UNIT} is {state.get('ActiveState') or 'not there'}"


@pytest.mark.usefixtures("from_outside")
@pytest.mark.nixos_control("OLL-002")
def test_api_answers(
    declared: OllamaSettings,
    ready: observe.HttpAnswer,
    nixos_machine: Machine,
    nixos_evidence: Evidence,
) -> None:
    nixos_evidence.expect({"GET /": "Ollama is running", "GET /api/version": "a version"})
    root = _ask(nixos_machine, declared, "/")
    nixos_evidence.observe({"GET /": root.text[:200], "GET /api/version": ready.text[:200]})
    assert ready.succeeded, f"no answer: {ready.failure or ready.status}"
    assert "Ollama is running" in root.text, f"GET / says {root.text[:80]!r}"


@pytest.mark.nixos_control("OLL-003")
def test_listens_on_the_declared_address_and_port_only(
    declared: OllamaSettings,
    ready: observe.HttpAnswer,  # noqa: ARG001 - listens only once it is ready
    nixos_observations: Observations,
    nixos_evidence: Evidence,
) -> None:
    sockets = nixos_observations.of(observe.sockets(owners=True))
    found = {
        (socket.address, socket.port)
        for socket in sockets.listening(observe.Protocol.TCP)
        if any(owner.unit == _UNIT for owner in sockets.owners.get(socket.inode, ()))
    }
    nixos_evidence.expect(f"{declared.host} port {declared.port}")
    nixos_evidence.observe(sorted(f"{address} port {port}" for address, port in found))
    assert found, f"{_UNIT} listens on no TCP port"
    ports = {port for _, port in found}
    assert ports == {declared.port}, f"listens on ports {sorted(ports)}, declared {declared.port}"
    wider = [a for a, _ in found if not _within(a, declared.host)]
    assert not wider, f"listens on {wider}, declared {declared.host}"


@pytest.mark.nixos_control("OLL-004")
def test_declared_models_are_listed(
    declared: OllamaSettings,
    ready: observe.HttpAnswer,
    nixos_machine: Machine,
    nixos_evidence: Evidence,
) -> None:
    if not declared.models:
        not_applicable("the host declares no services.ollama.loadModels")
    expected = nixos_evidence.expect(sorted(_tagged(model) for model in declared.models))
    assert ready.succeeded, "the API does not answer"
    listed = nixos_evidence.observe(_model_names(_ask(nixos_machine, declared, "/api/tags")))
    missing = [model for model in expected if model not in listed]
    assert not missing, f"declared and not listed: {missing}"


@pytest.mark.nixos_control("OLL-005")
def test_version_endpoint_answers_within_the_bound(
    declared: OllamaSettings,
    ready: observe.HttpAnswer,
    nixos_machine: Machine,
    nixos_slowness: Callable[[], str],
    nixos_evidence: Evidence,
) -> None:
    nixos_evidence.expect(f"within {_ANSWER_LIMIT_S:g} s")
    assert ready.succeeded, "the API does not answer"
    deadline = Deadline.after(_ANSWER_LIMIT_S)
    answer = _ask(nixos_machine, declared, "/api/version")
    nixos_evidence.observe(f"{deadline.elapsed_s:.2f} s")
    assert answer.succeeded, f"no answer: {answer.failure or answer.status}"
    if deadline.expired and (why := nixos_slowness()):
        not_applicable(f"unknown: took {deadline.elapsed_s:.1f} s, and {why}")
    assert not deadline.expired, f"took {deadline.elapsed_s:.1f} s"


@pytest.mark.nixos_control("OLL-006")
def test_cannot_be_reached_from_outside_unless_declared(
    declared: OllamaSettings,
    ready: observe.HttpAnswer,
    from_outside: Future[PortState],
    nixos_host_config: HostConfig,
    nixos_evidence: Evidence,
) -> None:
    opened = not _is_loopback(declared.host) and nixos_host_config.firewall.allows_tcp(
        declared.port, interface=""
    )
    nixos_evidence.expect("open" if opened else "closed or filtered")
    assert ready.succeeded, "the API does not answer, so nothing can be said of its reach"
    found = from_outside.result()
    nixos_evidence.observe(found.value)
    if opened:
        assert found is PortState.OPEN, f"declared open, and from outside it is {found.value}"
    else:
        assert found is not PortState.OPEN, "reachable from outside, and not declared so"


def _ask(machine: Machine, declared: OllamaSettings, path: str) -> observe.HttpAnswer:
    host = "127.0.0.1" if declared.host in _ALL_ADDRESSES else declared.host
    probe = observe.http([f"http://{host}:{declared.port}{path}"], timeout_s=_ANSWER_LIMIT_S)
    (answer,) = observe.observe(machine.run, probe)
    return answer


def _model_names(answer: observe.HttpAnswer) -> list[str]:
    try:
        document: Any = json.loads(answer.text)
        return sorted(str(model["name"]) for model in document["models"])
    except (ValueError, KeyError, TypeError):
        return []


def _tagged(model: str) -> str:
    """Add the tag that Ollama assumes."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def _within(address: str, declared: str) -> bool:
    if declared in _ALL_ADDRESSES:
        return True
    if declared == "localhost":
        return _is_loopback(address)
    return address == declared.strip("[]")


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False
