"""Several hosts: which ones were asked for, and their evaluation, as many at once as this
machine has room for.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import msgspec

from pytest_nixos.errors import EvalError
from pytest_nixos.local.memory import available_bytes
from pytest_nixos.nix.command.refs import HostRef, HostSelection
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.failure.absent import no_hosts
from pytest_nixos.nix.failure.evaluation import ImageRefused
from pytest_nixos.nix.flakes import Flakes
from pytest_nixos.nix.homes import all_hosts, host_named
from pytest_nixos.nix.memory import EvaluationMemory

__all__ = ["Evaluated", "Question", "Room", "evaluate_hosts", "recalled", "select_hosts"]

# Where the kernel does not tell: enough for one at a time.
_UNTOLD_BYTES = 1 << 20


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked about every host.

    :param backend: see :meth:`pytest_nixos.nix.flake.Flake.evaluate`.
    :param option_paths: further options to read, as written in a module.
    :param where: option paths whose definitions are told.
    :param machines_only: of these hosts only machines that stay are wanted, no ISO images and the
        like; nobody named them.
    """

    backend: str
    option_paths: tuple[str, ...]
    where: tuple[str, ...] = ()
    machines_only: frozenset[HostRef] = frozenset()


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine has for evaluations.

    :param available_mib: asks how much memory can be had now, swap included.
    """

    processors: int
    available_mib: Callable[[], int]

    @classmethod
    def of_this_machine(cls) -> Self:
        """Ask the kernel."""
        return cls(
            processors=len(os.sched_getaffinity(0)),
            available_mib=lambda: (available_bytes(swap=True) or _UNTOLD_BYTES) >> 20,
        )


class Evaluated(msgspec.Struct, frozen=True, kw_only=True):
    """What came out for one host: its config, or why there is none."""

    config: HostConfig | None
    failure: EvalError | None
    duration_s: float


def select_hosts(flakes: Flakes, selections: Sequence[HostSelection]) -> tuple[HostRef, ...]:
    """Return the hosts that are selected, each once, in order.

    :raises SettingsError: if a name is one of a host and of a home.
    :raises FlakeError: if a flake is not there or has no hosts.
    :raises EvalError: if a flake does not evaluate.
    """
    refs: dict[HostRef, None] = {}
    for selection in selections:
        if selection.host is not None:
            refs[host_named(flakes, selection)] = None
            continue
        found = all_hosts(flakes, selection.flake)
        if not found:
            raise no_hosts(selection.flake)
        refs |= dict.fromkeys(found)
    return tuple(refs)


def evaluate_hosts(
    flakes: Flakes,
    hosts: Sequence[HostRef],
    question: Question,
    *,
    say: Callable[[HostRef], None],
    room: Room | None = None,
) -> Mapping[HostRef, Evaluated]:
    """Evaluate hosts; what an earlier run kept is not evaluated again.

    Each evaluation is a process of its own, so that a host that does not evaluate takes no other
    with it. One evaluation of several hosts is no faster: nearly all of the work is each host's own
    packages and modules, and the heap of one process grows with each (nixpkgs 24.05: 3 hosts 27 s
    and 3.9 GiB, one by one 28 s and 1.7 GiB).

    :param say: called with each host whose evaluation takes time, as it starts.
    :param room: what this machine has, asked of it unless given.
    :raises FlakeError: if a flake cannot be read or lacks one of the hosts.
    """
    distinct = tuple(dict.fromkeys(hosts))
    found = {host: recalled(flakes, host, question) for host in distinct}
    unknown = [h for h in distinct if found[h].config is None and found[h].failure is None]
    room = room or Room.of_this_machine()
    memory = EvaluationMemory(flakes.nix.settings.cache)
    if len(unknown) > 1 and room.processors > 1:
        for ref in dict.fromkeys(host.flake for host in unknown):
            flakes.of(ref).fetch()

    def work(host: HostRef) -> Evaluated:
        say(host)
        return _evaluated(flakes, host, question, memory)

    return {**found, **_Queue(unknown, memory, room, work).finish()}


def recalled(flakes: Flakes, host: HostRef, question: Question) -> Evaluated:
    """Return what an earlier evaluation of a host kept; nothing where there is none.

    :raises FlakeError: if the flake cannot be read.
    """
    started_s = time.monotonic()
    config: HostConfig | None = flakes.of(host.flake).known(
        host.attr,
        backend=question.backend,
        option_paths=question.option_paths,
        where=question.where,
    )
    failure: EvalError | None = None
    if config is not None and config.image and host in question.machines_only:
        failure = ImageRefused(host, config.image)
        config = None
    return Evaluated(config=config, failure=failure, duration_s=time.monotonic() - started_s)


def _evaluated(
    flakes: Flakes, host: HostRef, question: Question, memory: EvaluationMemory
) -> Evaluated:
    started_s = time.monotonic()
    config, failure = None, None
    try:
        config = flakes.of(host.flake).evaluate(
            host.attr,
            backend=question.backend,
            option_paths=question.option_paths,
            where=question.where,
            refuse_image=host in question.machines_only,
            measured=lambda mib: memory.take(host, mib),
        )
    except EvalError as err:
        failure = err
    return Evaluated(config=config, failure=failure, duration_s=time.monotonic() - started_s)


class _Queue:
    """Evaluations that wait for a processor and for memory; the first of a flake tells what the
    others probably take.

    What does not fit beside those that run waits for them. What was measured to need more than this
    machine has is not started.
    """

    def __init__(
        self,
        hosts: Sequence[HostRef],
        memory: EvaluationMemory,
        room: Room,
        work: Callable[[HostRef], Evaluated],
    ) -> None:
        self._hosts = tuple(hosts)
        self._waiting = list(hosts)
        self._memory = memory
        self._room = room
        self._work = work
        self._running_mib: dict[HostRef, int] = {}
        self._free_mib = room.available_mib()
        self._done: dict[HostRef, Evaluated] = {}
        self._errors: dict[HostRef, BaseException] = {}
        self._changed = threading.Condition()

    def finish(self) -> dict[HostRef, Evaluated]:
        """Do all the work; raise what the first of the hosts raises.

        After Ctrl-C nobody waits for the threads: a Nix dies with the process that started it.
        """
        threads = min(self._room.processors, len(self._hosts))
        if threads < 2:
            self._run()
        else:
            workers = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        for host in self._hosts:
            if host in self._errors:
                raise self._errors[host]
        return self._done

    def _run(self) -> None:
        while (host := self._next()) is not None:
            try:
                refusal = self._refusal(host)
                self._done[host] = refusal if refusal is not None else self._work(host)
            except BaseException as err:  # noqa: BLE001 - raised again in finish(), in the thread that waits
                self._errors[host] = err
            finally:
                with self._changed:
                    del self._running_mib[host]
                    self._changed.notify_all()

    def _next(self) -> HostRef | None:
        """Wait until one of the hosts fits, and take it; ``None`` if there is no more to do."""
        with self._changed:
            while self._waiting and not self._errors:
                if not self._running_mib:
                    self._free_mib = self._room.available_mib()
                left_mib = self._free_mib - sum(self._running_mib.values())
                for host in self._waiting:
                    wanted_mib = self._memory.estimated_mib(host)
                    # Alone, one always starts: that it is larger than what is free is only a guess.
                    if wanted_mib <= left_mib or not self._running_mib:
                        self._waiting.remove(host)
                        self._running_mib[host] = wanted_mib
                        return host
                self._changed.wait()
        return None

    def _refusal(self, host: HostRef) -> Evaluated | None:
        """Say why a host is not evaluated: it was measured to need more than there is, with
        nothing else running.
        """
        needed_mib = self._memory.remembered_mib(host)
        with self._changed:
            alone = len(self._running_mib) == 1
            has_mib = self._free_mib
        if needed_mib is None or needed_mib <= has_mib or not alone:
            return None
        failure = EvalError(
            f"{host}: evaluating it took {needed_mib} MiB of memory, this machine has {has_mib} MiB available",
            remedy="end other programs, add swap, or evaluate it on a larger machine",
        )
        return Evaluated(config=None, failure=failure, duration_s=0.0)
