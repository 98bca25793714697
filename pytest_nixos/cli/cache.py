"""``pytest-nixos cache``: list what is cached, check it, or remove what is too old or too much."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_nixos.cli.command import Commands
from pytest_nixos.local.dirs import cache_directory
from pytest_nixos.local.numbers import positive
from pytest_nixos.machine.container.kept_database import KeptDatabases
from pytest_nixos.machine.snapshot.limits import (
    DEFAULT_CACHE_DAYS,
    DEFAULT_CACHE_GIB,
    CacheLimits,
)
from pytest_nixos.machine.snapshot.record import Snapshot, SnapshotDamaged
from pytest_nixos.machine.snapshot.store import SnapshotStore
from pytest_nixos.machine.vm.store_image import StoreImages
from pytest_nixos.nix.command.cache import EvaluationCache
from pytest_nixos.standards.bundled import compiled_cache
from pytest_nixos.standards.sources.scan_cache import ScanFile

__all__ = ["add", "cleared", "listed", "pruned", "verified"]

_MIB = 1 << 20
_HOUR_S = 3600.0


def add(commands: Commands) -> None:
    """Declare the command."""
    cache = commands.add_parser(
        "cache", help="list what is cached, check it, or remove what is too old or too much"
    )
    cache.add_argument(
        "action", choices=("list", "prune", "verify", "clear"), nargs="?", default="list"
    )
    cache.add_argument("--size", metavar="GIB", default=f"{DEFAULT_CACHE_GIB:g}", help="for prune")
    cache.add_argument("--age", metavar="DAYS", default=f"{DEFAULT_CACHE_DAYS:g}", help="for prune")
    cache.set_defaults(command=_cache)


def listed(evaluations: Path, snapshots: SnapshotStore, scans: ScanFile) -> Iterator[str]:
    """Tell what is cached, used least recently first."""
    files = sorted(evaluations.glob("*.json"))
    yield f"{evaluations}: {len(files)} evaluations, {sum(f.stat().st_size for f in files)} bytes"
    yield f"{scans.path.parent}: {scans.count} scans of store paths, {scans.size_bytes} bytes"
    entries = snapshots.entries()
    room = sum(entry.disk_bytes for entry in entries.values() if entry is not None)
    yield f"{snapshots.directory}: {len(entries)} snapshots, {room // _MIB} MiB"
    for key, entry in entries.items():
        yield f"  {key[:12]}  {_told(snapshots, key, entry)}"


def pruned(
    evaluations: Path, snapshots: SnapshotStore, scans: ScanFile, limits: CacheLimits
) -> Iterator[str]:
    """Remove what is not whole, too old, or too much."""
    old = EvaluationCache(directory=evaluations, most_age_s=limits.most_age_s).prune()
    yield f"{old} evaluations removed"
    gone = scans.prune(most_age_s=limits.most_age_s, now_s=time.time())
    yield f"scans of store paths {'removed' if gone else 'kept'}"
    removed = snapshots.prune(limits)
    yield from (f"removed {key[:12]}" for key in removed)
    yield f"{len(removed)} snapshots removed, {len(snapshots.entries())} kept"


def verified(snapshots: SnapshotStore, scans: ScanFile) -> Iterator[str]:
    """Read all snapshots and scans, and remove those that are not as they were saved."""
    if (wrong := scans.problem()) is not None:
        gone = scans.remove()
        yield f"{scans.path}: {wrong}; {'removed' if gone else 'not removed'}"
    elif scans.count:
        yield f"{scans.path}: whole"
    for key in snapshots.entries():
        try:
            with snapshots.using(key) as snapshot:
                if snapshot is not None:
                    snapshot.verify()
            yield f"{key[:12]}: whole"
        except SnapshotDamaged as err:
            gone = snapshots.discard(key)
            yield f"{key[:12]}: {err.message}; {'removed' if gone else 'in use, not removed'}"


def cleared(evaluations: Path, snapshots: SnapshotStore, scans: ScanFile) -> Iterator[str]:
    """Remove everything that is not in use."""
    files = sorted(evaluations.glob("*.json"))
    for file in files:
        file.unlink(missing_ok=True)
    yield f"removed {len(files)} evaluations from {evaluations}"
    count = scans.count
    yield f"removed {count if scans.remove() else 0} scans from {scans.path.parent}"
    entries = snapshots.entries()
    gone = [key for key in entries if snapshots.discard(key)]
    yield f"removed {len(gone)} of {len(entries)} snapshots from {snapshots.directory}"


def _cache(options: argparse.Namespace) -> Iterator[str]:
    snapshots = SnapshotStore.of_user()
    evaluations = cache_directory("evaluations")
    scans = ScanFile.of_user()
    images = StoreImages.of_user()
    actions: dict[str, Callable[[], Iterator[str]]] = {
        "list": lambda: listed(evaluations, snapshots, scans),
        "prune": lambda: pruned(evaluations, snapshots, scans, _limits(options)),
        "verify": lambda: verified(snapshots, scans),
        "clear": lambda: cleared(evaluations, snapshots, scans),
    }
    if options.action == "clear":
        for unlisted in (compiled_cache().directory, KeptDatabases.of_user().directory):
            shutil.rmtree(unlisted, ignore_errors=True)
    yield from actions[options.action]()
    if options.action == "verify":
        return
    if options.action in ("prune", "clear"):
        limits = CacheLimits(most_bytes=0) if options.action == "clear" else _limits(options)
        yield f"removed {images.prune(limits)} images of stores from {images.directory}"
    room = sum(images.sizes().values())
    yield f"{images.directory}: {len(images.sizes())} images of stores, {room // _MIB} MiB"


def _limits(options: argparse.Namespace) -> CacheLimits:
    return CacheLimits.of(
        size_gib=positive(options.size, option="--size", unit="GiB"),
        age_days=positive(options.age, option="--age", unit="days"),
    )


def _told(snapshots: SnapshotStore, key: str, entry: Snapshot | None) -> str:
    if entry is None:
        return "not whole"
    record = entry.record
    hours = (time.time() - snapshots.used_at_s(key)) / _HOUR_S
    return (
        f"{record.host}  {entry.disk_bytes // _MIB} MiB  {record.memory_mib} MiB of memory, "
        f"{entry.memory_bytes // _MIB} in use  booted in {record.boot_s:.0f} s  used {hours:.1f} h ago"
    )
