"""Snapshots on disk: whole or not used, private, limited; with real files and no machine."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from pytest_nixos.local.sparse_file import move_sparse
from pytest_nixos.machine.console import ConsoleLine
from pytest_nixos.machine.snapshot.record import (
    MEMORY,
    RECORD,
    STATE,
    GuestAtRest,
    Snapshot,
    SnapshotDamaged,
    SnapshotRecord,
    snapshot_key,
)
from pytest_nixos.machine.snapshot.sealed_file import SealedFile
from pytest_nixos.machine.snapshot.store import CacheLimits, SnapshotStore

KEY = snapshot_key({"system": "/nix/store/x"})
MIB = 1 << 20


def write_files(draft: Path) -> tuple[SealedFile, ...]:
    with (draft / MEMORY).open("wb") as memory:
        memory.truncate(8 * MIB)
        memory.seek(3 * MIB)
        memory.write(b"the guest's memory")
    (draft / STATE).write_bytes(b"devices" * 1000)
    (draft / "tmp").mkdir(mode=0o700)
    (draft / "tmp/store.img").write_bytes(b"store")
    return tuple(SealedFile.seal(draft, name) for name in (MEMORY, STATE, "tmp/store.img"))


def record(files: tuple[SealedFile, ...], key: str = KEY) -> SnapshotRecord:
    return SnapshotRecord(
        key=key,
        host="h",
        parts={"system": "/nix/store/x"},
        argv=("/nix/store/q/bin/qemu", "-name", "h"),
        cwd="@RUN@/tmp",
        memory_mib=8,
        saved_at_s=1000.0,
        boot_s=12.5,
        guest=GuestAtRest(failed_units=("a.service",), timers={"t.timer": 2000.0}),
        console=(ConsoleLine(at_s=1.0, text="Linux version 6"),),
        files=files,
    )


def save(store: SnapshotStore, key: str = KEY) -> Path:
    with store.draft() as draft:
        assert store.commit(draft, record(write_files(draft), key))
    return store.path(key)


def damage(store: SnapshotStore) -> str:
    with pytest.raises(SnapshotDamaged) as caught, store.using(KEY):
        pass
    return caught.value.message


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path / "cache/snapshots")


def test_what_was_saved_is_what_is_used(store: SnapshotStore) -> None:
    with store.using(KEY) as absent:
        assert absent is None
    path = save(store)
    with store.using(KEY) as snapshot:
        assert snapshot is not None
        assert snapshot.record == record(snapshot.record.files)
        assert snapshot.directory == path
        assert 0 < snapshot.memory_bytes < MIB  # the holes take no room


def test_everything_is_private(store: SnapshotStore) -> None:
    path = save(store)
    modes = {p.name: p.stat().st_mode & 0o777 for p in (path, *path.rglob("*"))}
    expected = {p.name: 0o700 if p.is_dir() else 0o600 for p in (path, *path.rglob("*"))}
    assert modes == expected
    assert store.directory.stat().st_mode & 0o777 == 0o700


def cut(path: Path) -> None:
    os.truncate(path / STATE, 100)


def flip(path: Path) -> None:
    with (path / MEMORY).open("r+b") as memory:
        memory.seek(3 * MIB + 2)
        memory.write(bytes([ord("e") ^ 1]))


def flip_and_hide(path: Path) -> None:
    before = (path / STATE).stat()
    data = bytearray((path / STATE).read_bytes())
    data[5000] ^= 0x40
    (path / STATE).write_bytes(data)
    os.utime(path / STATE, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(path: Path) -> None:
    (path / "tmp/store.img").unlink()


def link(path: Path) -> None:
    (path / STATE).rename(path / "elsewhere")
    (path / STATE).symlink_to(path / "elsewhere")


def open_up(path: Path) -> None:
    (path / MEMORY).chmod(0o644)


def open_directory(path: Path) -> None:
    path.chmod(0o755)


def cut_record(path: Path) -> None:
    os.truncate(path / RECORD, 200)


def edit_record(path: Path) -> None:
    text = (path / RECORD).read_bytes()
    (path / RECORD).write_bytes(text.replace(b"/nix/store/q/bin/qemu", b"/tmp/evil/bin/qemu___"))


def without_record(path: Path) -> None:
    (path / RECORD).unlink()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (cut, "state has 100 bytes, 7000 were saved"),
        (flip, "ram has changed since it was saved"),
        (flip_and_hide, "state has changed since it was saved"),
        (remove, "store.img: No such file"),
        (link, "state is no regular file"),
        (open_up, "ram is open to other users"),
        (open_directory, "open to other users"),
        (cut_record, "cut off or changed"),
        (edit_record, "cut off or changed"),
        (without_record, "record cannot be read"),
    ],
)
def test_a_harmed_snapshot_is_not_used(
    store: SnapshotStore, harm: Callable[[Path], None], words: str
) -> None:
    harm(save(store))
    assert words in damage(store)
    assert store.discard(KEY)
    assert not store.path(KEY).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", ["", STATE])
def test_another_users_snapshot_is_not_used(store: SnapshotStore, name: str) -> None:
    path = save(store)
    os.chown(path / name, 65534, 65534)
    assert "belongs to user 65534" in damage(store)


def test_a_restored_copy_is_read_and_accepted(store: SnapshotStore, tmp_path: Path) -> None:
    path = save(store)
    shutil.copytree(path, tmp_path / "copy")
    shutil.rmtree(path)
    move_sparse(tmp_path / "copy", path)
    with store.using(KEY) as snapshot:
        assert snapshot is not None
        snapshot.verify()


def test_bytes_that_change_without_a_trace_are_found_by_reading_all(
    store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(store)
    flip(path)
    # As if the disk itself had done it: the times are as recorded.
    monkeypatch.setattr("pytest_nixos.machine.snapshot.sealed_file._stamp", lambda _: (0, 0, 0))
    loaded = Snapshot.load(path)
    files = tuple(replace(file, stamp=(0, 0, 0)) for file in loaded.record.files)
    unmarked = replace(loaded, record=replace(loaded.record, files=files))
    unmarked.check()
    with pytest.raises(SnapshotDamaged, match="ram has changed"):
        unmarked.verify()


def test_a_draft_that_is_not_committed_leaves_nothing(store: SnapshotStore) -> None:
    with store.draft() as draft:
        write_files(draft)
    assert list(store.directory.iterdir()) == []


def test_what_a_killed_session_left_is_swept(store: SnapshotStore) -> None:
    left = store.directory / ".new-killed"
    left.mkdir(parents=True)
    (left / MEMORY).write_bytes(b"x")
    os.utime(left, (1, 1))
    with store.draft():
        assert not left.exists()


def test_a_memory_that_a_killed_session_left_goes_with_the_next_start_not_the_next_save(
    store: SnapshotStore,
) -> None:
    save(store)
    left = store.directory / ".new-killed"
    left.mkdir()
    (left / MEMORY).write_bytes(b"x")
    os.utime(left, (1, 1))
    with store.using(KEY) as found:
        assert found is not None
        assert not left.exists()


def test_a_draft_under_way_is_not_swept(store: SnapshotStore) -> None:
    with store.draft() as draft:
        os.utime(draft, (1, 1))
        with store.draft():
            assert draft.exists()


def test_one_session_writes_a_key(store: SnapshotStore) -> None:
    with store.writing(KEY) as mine:
        assert mine
        with store.writing(KEY) as theirs:
            assert not theirs
        with store.writing("another") as other:
            assert other
    with store.writing(KEY) as free:
        assert free


def test_a_snapshot_in_use_stays(store: SnapshotStore) -> None:
    save(store)
    with store.using(KEY):
        assert not store.discard(KEY)
        assert store.prune(CacheLimits(most_bytes=0, most_age_s=0.0)) == ()
        with store.draft() as draft:
            assert not store.commit(draft, record(write_files(draft)))
    assert store.discard(KEY)


def test_the_least_recently_used_goes_first(store: SnapshotStore) -> None:
    keys = [snapshot_key({"n": str(n)}) for n in range(3)]
    for age, key in zip((30, 10, 20), keys, strict=True):
        save(store, key)
        os.utime(store.path(key) / "used", (time.time() - age,) * 2)
    entries = store.entries()
    assert list(entries) == [keys[0], keys[2], keys[1]]
    sizes = [entry.disk_bytes for entry in entries.values() if entry is not None]
    assert store.prune(CacheLimits(most_bytes=sum(sizes) - 1)) == (keys[0],)
    assert store.prune(CacheLimits(most_age_s=15.0)) == (keys[2],)
    assert store.prune(CacheLimits()) == ()
    assert list(store.entries()) == [keys[1]]


def test_what_is_not_whole_is_pruned(store: SnapshotStore) -> None:
    cut_record(save(store))
    assert store.entries() == {KEY: None}
    assert store.prune(CacheLimits()) == (KEY,)


def test_the_key_follows_every_part() -> None:
    parts = {"system": "/nix/store/x", "memory": "1024"}
    assert snapshot_key(parts) == snapshot_key(dict(reversed(parts.items())))
    assert snapshot_key(parts) != snapshot_key({**parts, "memory": "2048"})
    assert snapshot_key(parts) != snapshot_key({**parts, "more": ""})
