"""A changed generation is built while other tests run, once its host's machine is up."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import EvalError
from pytest_nixos.nix.command.refs import FlakeRef, HostRef
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.schedule import Room
from pytest_nixos.plugin.machines.generations_ahead import GenerationsAhead
from pytest_nixos.plugin.stash import SESSION

ROOMY = Room(processors=2, available_mib=lambda: 10_000)
FULL = Room(processors=2, available_mib=lambda: 100)


class FlakesSpy:
    """Keeps what is asked of Nix, and by which thread."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.nix = self
        self.settings = SimpleNamespace(cache=None)
        self.instantiated: list[tuple[str, str, str]] = []
        self.built: list[str] = []
        self.threads: set[threading.Thread] = set()
        self._failure = failure

    def of(self, _ref: FlakeRef) -> FlakesSpy:
        return self

    def instantiate_generation(self, name: str, *, backend: str, delta: str) -> str:
        self.threads.add(threading.current_thread())
        if self._failure is not None:
            raise self._failure
        self.instantiated.append((name, backend, delta))
        return "/nix/store/x.drv"

    def build_ahead(self, derivations: list[str]) -> None:
        self.built += derivations


def module(_host: HostConfig, place: str) -> str:
    return f"{{ }} # in a {place}"


def run(
    flakes: FlakesSpy,
    *,
    room: Room = ROOMY,
    is_up: bool = True,
    backend: BackendName = BackendName.VM,
    is_marked: bool = True,
    is_late: bool = False,
) -> None:
    """Let a test of a host end, and wait for what that begins."""
    host = SimpleNamespace(ref=HostRef(FlakeRef("/f"), "web"), backend="vm")
    session = SimpleNamespace(
        flakes=flakes,
        changed_machines=SimpleNamespace(of=lambda _key: object() if is_up else None),
        backend_name=lambda _key: backend,
        host_config=lambda _key: host,
    )
    marker = pytest.mark.nixos_generation(make=module).mark
    item = SimpleNamespace(
        get_closest_marker=lambda _name: marker if is_marked else None,
        callspec=SimpleNamespace(params={"_nixos_host": "web"}),
        config=SimpleNamespace(stash={SESSION: session}),
    )
    ahead = GenerationsAhead(room)
    ahead.pytest_collection_finish(cast("Any", SimpleNamespace(items=[item])))
    is_marked = is_late  # of the test that ends
    before = set(threading.enumerate())
    for _ in range(2):
        ahead.pytest_runtest_teardown(cast("Any", item))
    for thread in set(threading.enumerate()) - before:
        thread.join(20)


def test_it_is_evaluated_and_built_once_beside_the_tests() -> None:
    flakes = FlakesSpy()
    run(flakes)
    assert flakes.instantiated == [("web", "vm", "{ } # in a vm")]
    assert flakes.built == ["/nix/store/x.drv"]
    assert threading.current_thread() not in flakes.threads


@pytest.mark.parametrize(
    "why",
    [
        {"room": FULL},
        {"is_up": False},
        {"backend": BackendName.SSH},
        {"is_marked": False},
        {"is_late": True},
    ],
    ids=["memory is short", "no machine yet", "live host", "nobody asks", "it was built by then"],
)
def test_it_is_left_to_its_check(why: dict[str, Any]) -> None:
    flakes = FlakesSpy()
    run(flakes, **why)
    assert (flakes.instantiated, flakes.built) == ([], [])


def test_what_fails_is_told_by_its_check() -> None:
    flakes = FlakesSpy(EvalError("odd", remedy=""))
    run(flakes)
    assert flakes.built == []
