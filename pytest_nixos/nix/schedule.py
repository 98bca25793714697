"""Several hosts: which ones were asked for, and their evaluation, as many at once as this machine has room for."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pytest_nixos.errors import EvalError, FlakeError
from pytest_nixos.local.memory import available_bytes
from pytest_nixos.nix.flake import Flakes
from pytest_nixos.nix.host_facts import HostConfig
from pytest_nixos.nix.refs import HostRef, HostSelection

__all__ = ["Evaluated", "Question", "at_once", "evaluate_hosts", "select_hosts"]

# What one evaluation of a real host takes, with air: 1.7 GiB was measured with nixpkgs 24.05.
_EVALUATION_MIB = 2560


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked about every host.

    :param backend: see :meth:`pytest_nixos.nix.flake.Flake.evaluate`.
    :param option_paths: further options to read, as written in a module.
    """

    backend: str
    option_paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What came out for one host: its config, or why there is none."""

    config: HostConfig | None
    failure: EvalError | None
    duration_s: float


def select_hosts(flakes: Flakes, selections: Sequence[HostSelection]) -> tuple[HostRef, ...]:
    """Return the hosts that are selected, each once, in order.

    :raises FlakeError: if a flake is not there or has no hosts.
    :raises EvalError: if a flake does not evaluate.
    """
    refs: dict[HostRef, None] = {}
    for selection in selections:
        if selection.host is not None:
            refs[selection.host] = None
            continue
        names = flakes.of(selection.flake).host_names()
        if not names:
            raise FlakeError(
                f"{selection.flake}: nixosConfigurations is empty",
                remedy="add a host to the flake, or name another flake",
            )
        refs |= {HostRef(selection.flake, name): None for name in names}
    return tuple(refs)


def evaluate_hosts(
    flakes: Flakes, hosts: Sequence[HostRef], question: Question, *, say: Callable[[HostRef], None]
) -> Mapping[HostRef, Evaluated]:
    """Evaluate hosts; what an earlier run kept is not evaluated again.

    Each evaluation is a process of its own, so that a host that does not evaluate takes no other with it. One
    evaluation of several hosts is no faster: nearly all of the work is each host's own packages and modules, and
    the heap of one process grows with each (nixpkgs 24.05: 3 hosts 27 s and 3.9 GiB, one by one 28 s and 1.7 GiB).

    :param say: called with each host whose evaluation takes time, before any of them starts.
    :raises FlakeError: if a flake cannot be read or lacks one of the hosts.
    """
    distinct = tuple(dict.fromkeys(hosts))
    found = {host: _recalled(flakes, host, question) for host in distinct}
    unknown = [host for host in distinct if found[host].config is None]
    for host in unknown:
        say(host)
    threads = min(len(unknown), at_once(_processors(), _available_mib()))
    if threads > 1:
        for ref in dict.fromkeys(host.flake for host in unknown):
            flakes.of(ref).fetch()
    return {
        **found,
        **_in_threads(lambda host: _evaluated(flakes, host, question), unknown, threads),
    }


def at_once(processors: int, available_mib: int) -> int:
    """Return how many evaluations run at once."""
    return max(1, min(processors, available_mib // _EVALUATION_MIB))


def _recalled(flakes: Flakes, host: HostRef, question: Question) -> Evaluated:
    started_s = time.monotonic()
    config = flakes.of(host.flake).known(
        host.attr, backend=question.backend, option_paths=question.option_paths
    )
    return Evaluated(config=config, failure=None, duration_s=time.monotonic() - started_s)


def _evaluated(flakes: Flakes, host: HostRef, question: Question) -> Evaluated:
    started_s = time.monotonic()
    config, failure = None, None
    try:
        config = flakes.of(host.flake).evaluate(
            host.attr, backend=question.backend, option_paths=question.option_paths
        )
    except EvalError as err:
        failure = err
    return Evaluated(config=config, failure=failure, duration_s=time.monotonic() - started_s)


def _in_threads(
    work: Callable[[HostRef], Evaluated], hosts: Sequence[HostRef], threads: int
) -> dict[HostRef, Evaluated]:
    """Do `work` for every host, `threads` at a time; raise what the first of them raises.

    After Ctrl-C nobody waits for the threads: a Nix dies with the process that started it.
    """
    if threads < 2:
        return {host: work(host) for host in hosts}
    left = deque(hosts)
    done: dict[HostRef, Evaluated] = {}
    errors: dict[HostRef, BaseException] = {}

    def run() -> None:
        while not errors:
            try:
                host = left.popleft()
            except IndexError:
                return
            try:
                done[host] = work(host)
            except BaseException as err:  # noqa: BLE001 - raised again below, in the thread that waits
                errors[host] = err

    workers = [threading.Thread(target=run, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for host in hosts:
        if host in errors:
            raise errors[host]
    return done


def _processors() -> int:
    return len(os.sched_getaffinity(0))


def _available_mib() -> int:
    return (available_bytes() or 0) >> 20
