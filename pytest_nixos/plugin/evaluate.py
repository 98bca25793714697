"""Opening a session: list the hosts that were asked for, evaluate each once, load the standards."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Self

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import EvalError, FlakeError
from pytest_nixos.generations.upgrade_stage import Stage
from pytest_nixos.local.memory import available_bytes
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.nix.argv import NixSettings
from pytest_nixos.nix.cache import EvaluationCache, default_cache_directory
from pytest_nixos.nix.evaluation import Locked, Nix
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.refs import FlakeRef, HostRef
from pytest_nixos.plugin.options import Settings, SnapshotUse
from pytest_nixos.plugin.session import HostEntry, NixosSession
from pytest_nixos.standards.load import load_catalogue, option_paths
from pytest_nixos.standards.model import Control
from pytest_nixos.standards.profile import load_profiles, select_controls
from pytest_nixos.standards.waivers import load_waivers

__all__ = [
    "FURTHER_OPTIONS",
    "evaluations_at_once",
    "host_refs",
    "instrumentation",
    "make_nix",
    "nix_settings",
    "open_session",
]

# Asked for beside what the controls read: a container takes over declared addresses, and what a host says to this plugin.
FURTHER_OPTIONS = ("networking.interfaces", "passthru.pytest-nixos")

# What one evaluation of a real host takes, with air: 1.7 GiB was measured with nixpkgs 24.05.
_EVALUATION_MIB = 2560

Say = Callable[[str], None]


def open_session(
    settings: Settings, nix: Nix, *, catalogue_dirs: Sequence[Path], say: Say
) -> NixosSession:
    """List and evaluate the hosts of a run.

    A host that does not evaluate becomes an entry with its failure, so that the others are still judged.

    :param say: told what is being done, one line each.
    :raises NixosError: if a flake or host cannot be found, the catalogue is malformed, or no host evaluates.
    """
    catalogue = load_catalogue(catalogue_dirs)
    profiles = load_profiles(catalogue, catalogue_dirs)
    controls = select_controls(settings.profiles, profiles, catalogue)
    waivers = load_waivers(settings.waivers, catalogue.controls) if settings.waivers else ()
    locks = {
        flake: nix.lock(flake)
        for flake in dict.fromkeys(chosen.flake for chosen in settings.flakes)
    }
    refs = host_refs(settings, nix, locks)
    entries = _entries(refs, settings)
    for entry in entries:
        if entry.ref.flake not in locks:
            locks[entry.ref.flake] = nix.lock(entry.ref.flake)
    _evaluate(entries, nix, locks, _Questions.of(settings, controls), say)
    failures = [entry.failure for entry in entries if entry.failure is not None]
    if len(failures) == len(entries):
        raise failures[0]
    return NixosSession(
        settings=settings,
        nix=nix,
        catalogue=catalogue,
        controls=controls,
        waivers=waivers,
        entries=entries,
    )


def make_nix(settings: NixSettings, instrumentation: Instrumentation) -> Nix:
    """Make the Nix command line of this machine."""
    return Nix(runner=SubprocessRunner(), instrumentation=instrumentation, settings=settings)


def nix_settings(settings: Settings) -> NixSettings:
    """Return what the session asks of Nix; evaluations are kept in the user's cache directory."""
    return NixSettings(
        override_inputs=settings.override_inputs,
        nix_options=settings.nix_options,
        impure=settings.impure,
        cache=EvaluationCache(directory=default_cache_directory(os.environ)),
    )


def instrumentation(settings: Settings | None = None) -> Instrumentation:
    """Return what a VM gets beside the host's own config; without settings, as the options default."""
    script = resources.files("pytest_nixos.machine.channel").joinpath("guest_channel.bash")
    text = script.read_text(encoding="utf-8")
    if settings is None:
        return Instrumentation(channel_script=text)
    return Instrumentation(
        channel_script=text,
        memory_mib=settings.memory_mib,
        cores=settings.cores,
        restrict_network=not settings.open_network,
        snapshot=settings.snapshot is not SnapshotUse.OFF,
    )


def host_refs(
    settings: Settings, nix: Nix, locks: Mapping[FlakeRef, Locked]
) -> tuple[HostRef, ...]:
    """Return the hosts that the settings select, each once, in order.

    :param locks: what each flake is now.
    :raises FlakeError: if a flake is not there, has no hosts, or lacks one that was named.
    """
    refs: dict[HostRef, None] = {}
    for selection in settings.flakes:
        if selection.host is not None:
            refs[selection.host] = None
            continue
        names = nix.host_names(selection.flake, locked=locks[selection.flake])
        if not names:
            raise FlakeError(
                f"{selection.flake}: nixosConfigurations is empty",
                remedy="add a host to the flake, or name another flake",
            )
        refs |= {HostRef(selection.flake, name): None for name in names}
    return tuple(refs)


def _entries(refs: Sequence[HostRef], settings: Settings) -> list[HostEntry]:
    """Return one entry a host, or of an upgrade test one for each stage of it."""
    keys = _keys(refs)
    if settings.upgrade_from is None:
        return [HostEntry(key=key, ref=ref) for key, ref in keys.items()]
    entries = []
    for key, new in keys.items():
        old = settings.upgrade_from.of(new)
        for stage in Stage:
            ref = new if stage is Stage.NEW else old
            entries.append(HostEntry(key=stage.of(key), ref=ref, subject=key, stage=stage))
    return entries


def _keys(refs: Sequence[HostRef]) -> dict[str, HostRef]:
    """Name hosts by attribute; by flake and attribute where two flakes have the same one."""
    count = Counter(ref.attr for ref in refs)
    return {ref.attr if count[ref.attr] == 1 else str(ref): ref for ref in refs}


def evaluations_at_once(processors: int, available_mib: int) -> int:
    """Return how many evaluations run at once.

    Each is a process of its own, so that a host that does not evaluate takes no other with it. One evaluation
    of several hosts is no faster: nearly all of the work is each host's own packages and modules, and the
    heap of one process grows with each (nixpkgs 24.05: 3 hosts 27 s and 3.9 GiB, one by one 28 s and 1.7 GiB).
    """
    return max(1, min(processors, available_mib // _EVALUATION_MIB))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Questions:
    """What is asked about every host."""

    backend: str
    option_paths: tuple[str, ...]

    @classmethod
    def of(cls, settings: Settings, controls: Sequence[Control]) -> Self:
        # A live host is asked for what it declares: as the machine that it would be here.
        chosen = None if settings.backend is BackendName.SSH else settings.backend
        return cls(
            backend="auto" if chosen is None else chosen.value,
            option_paths=(*option_paths(controls), *FURTHER_OPTIONS),
        )


def _evaluate(
    entries: Sequence[HostEntry],
    nix: Nix,
    locks: Mapping[FlakeRef, Locked],
    questions: _Questions,
    say: Say,
) -> None:
    """Give each entry its config, or the reason why it has none."""
    unknown = [entry for entry in entries if not _recall(entry, nix, locks, questions)]
    for entry in unknown:
        say(f"{entry.key}: evaluating {entry.ref}")
    at_once = min(len(unknown), evaluations_at_once(_processors(), _available_mib()))
    if at_once < 2:
        for entry in unknown:
            _evaluate_one(entry, nix, locks, questions)
    else:
        for flake in dict.fromkeys(entry.ref.flake for entry in unknown):
            nix.fetch(flake)
        _in_threads(lambda entry: _evaluate_one(entry, nix, locks, questions), unknown, at_once)
    for entry in unknown:
        if entry.failure is not None:
            say(f"{entry.key}: does not evaluate")


def _in_threads(
    work: Callable[[HostEntry], None], entries: Sequence[HostEntry], at_once: int
) -> None:
    """Do `work` for every entry, `at_once` at a time; raise what the first of them raises.

    After Ctrl-C nobody waits for the threads: a Nix dies with the process that started it.
    """
    left = deque(entries)
    errors: dict[str, BaseException] = {}

    def run() -> None:
        while not errors:
            try:
                entry = left.popleft()
            except IndexError:
                return
            try:
                work(entry)
            except BaseException as err:  # noqa: BLE001 - raised again below, in the thread that waits
                errors[entry.key] = err

    threads = [threading.Thread(target=run, daemon=True) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for entry in entries:
        if entry.key in errors:
            raise errors[entry.key]


def _recall(
    entry: HostEntry, nix: Nix, locks: Mapping[FlakeRef, Locked], questions: _Questions
) -> bool:
    started_s = time.monotonic()
    entry.config = nix.known(
        entry.ref,
        locks[entry.ref.flake],
        backend=questions.backend,
        option_paths=questions.option_paths,
    )
    entry.phases_s["evaluate"] = time.monotonic() - started_s
    return entry.config is not None


def _evaluate_one(
    entry: HostEntry, nix: Nix, locks: Mapping[FlakeRef, Locked], questions: _Questions
) -> None:
    started_s = time.monotonic()
    try:
        entry.config = nix.evaluate(
            entry.ref,
            backend=questions.backend,
            option_paths=questions.option_paths,
            locked=locks[entry.ref.flake],
        )
    except EvalError as err:
        entry.fail(err)
    entry.phases_s["evaluate"] = time.monotonic() - started_s


def _processors() -> int:
    return len(os.sched_getaffinity(0))


def _available_mib() -> int:
    return (available_bytes() or 0) >> 20
