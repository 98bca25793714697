"""Which evaluations run at once: as many as there are processors, and as their memory fits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_nixos.errors import EvalError
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.cache import EvaluationCache
from pytest_nixos.nix.command.refs import FlakeRef, HostRef
from pytest_nixos.nix.memory import UNKNOWN_MIB, EvaluationMemory
from pytest_nixos.nix.schedule import Evaluated, Question, Room, evaluate_hosts

FLAKE = FlakeRef("/f")
HOSTS = [HostRef(FLAKE, name) for name in "abcd"]
QUESTION = Question(backend="auto", option_paths=())


class Measured:
    """Plays all flakes: each evaluation takes some memory for some time, and what runs at once
    is noted.
    """

    def __init__(self, cache: EvaluationCache | None, needs_mib: Callable[[str], int]) -> None:
        self.nix = SimpleNamespace(settings=NixSettings(cache=cache))
        self.needs_mib = needs_mib
        self.evaluated: list[str] = []
        self.together: list[set[str]] = []
        self._running: set[str] = set()
        self._lock = threading.Lock()

    def of(self, _ref: FlakeRef) -> Measured:
        return self

    def fetch(self) -> None:
        pass

    def known(self, _name: str, **_: object) -> None:
        return None

    def evaluate(self, name: str, *, measured: Callable[[int], None], **_: object) -> str:
        with self._lock:
            self.evaluated.append(name)
            self._running.add(name)
            self.together.append(set(self._running))
        time.sleep(0.05)
        with self._lock:
            self._running.remove(name)
        measured(self.needs_mib(name))
        return f"config of {name}"


def evaluated(
    flakes: Measured, *, available_mib: int, processors: int = 4, hosts: Sequence[HostRef] = HOSTS
) -> dict[str, Evaluated]:
    fake: Any = flakes
    room = Room(processors=processors, available_mib=lambda: available_mib)
    found = evaluate_hosts(fake, hosts, QUESTION, say=lambda _: None, room=room)
    return {host.attr: outcome for host, outcome in found.items()}


@pytest.fixture
def cache(tmp_path: Path) -> EvaluationCache:
    return EvaluationCache(directory=tmp_path / "cache")


def test_the_first_runs_alone_where_memory_is_short_and_tells_what_the_others_take() -> None:
    flakes = Measured(None, lambda _: 2000)
    evaluated(flakes, available_mib=4100)
    assert flakes.together[0] == {"a"}
    assert max(len(names) for names in flakes.together) == 2


def test_with_room_for_the_largest_all_start_at_once() -> None:
    flakes = Measured(None, lambda _: 2000)
    evaluated(flakes, available_mib=4 * UNKNOWN_MIB)
    assert max(len(names) for names in flakes.together) == 4


def test_processors_limit_them() -> None:
    flakes = Measured(None, lambda _: 1)
    evaluated(flakes, available_mib=1 << 20, processors=2)
    assert max(len(names) for names in flakes.together) == 2


def test_what_was_measured_is_remembered_by_host(cache: EvaluationCache) -> None:
    evaluated(Measured(cache, lambda name: 3000 if name == "a" else 1000), available_mib=4000)
    flakes = Measured(cache, lambda _: 1)
    evaluated(flakes, available_mib=3500)
    assert all("a" not in names or len(names) == 1 for names in flakes.together)
    assert max(len(names) for names in flakes.together) == 3


def test_what_was_measured_and_does_not_fit_is_not_started(cache: EvaluationCache) -> None:
    EvaluationMemory(cache).take(HOSTS[0], 9000)
    flakes = Measured(cache, lambda _: 100)
    found = evaluated(flakes, available_mib=8000)
    assert "a" not in flakes.evaluated
    failure = found["a"].failure
    assert isinstance(failure, EvalError)
    assert "took 9000 MiB of memory, this machine has 8000 MiB available" in failure.message
    assert {name for name, outcome in found.items() if outcome.config} == {"b", "c", "d"}


def test_a_guess_keeps_nobody_from_running_alone() -> None:
    flakes = Measured(None, lambda _: 100)
    found = evaluated(flakes, available_mib=10, hosts=HOSTS[:1])
    assert found["a"].failure is None


def test_a_damaged_memory_counts_as_none(cache: EvaluationCache) -> None:
    EvaluationMemory(cache).take(HOSTS[0], 9000)
    (file,) = cache.directory.glob("*.json")
    file.write_text(file.read_text().replace("9000", '"many"'))
    assert EvaluationMemory(cache).remembered_mib(HOSTS[0]) is None
    assert EvaluationMemory(cache).estimated_mib(HOSTS[0]) == UNKNOWN_MIB
