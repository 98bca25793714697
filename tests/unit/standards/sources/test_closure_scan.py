"""The closure of a host: what is read whole, what is searched, and what is told of the rest."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
from pathlib import Path

import pytest

from pytest_nixos.secrets.hit import Hit
from pytest_nixos.standards.sources.closure_scan import Closure, scan_closure
from pytest_nixos.standards.sources.flake_files import StoreScan
from pytest_nixos.standards.sources.initrd_files import UnreadableInitrd, initrd_files
from pytest_nixos.standards.sources.scan_cache import PathScan, ScanCache

CANARY = "pytest-nixos-canary-" + "0123456789abcdef" * 2
PASSWORD = "password = Tr0ub4dor-and-3\n"
HASH = "0123456789abcdfghijklmnpqrsvwxyz"


def _path(store: Path, name: str, **files: str | bytes) -> Path:
    """Make a store path: one file, or with names of files (``__`` for a slash) a folder."""
    path = store / f"{hashlib.sha256(name.encode()).hexdigest()[:32].replace('e', 'z')}-{name}"
    for file, content in files.items():
        target = path / file.replace("__", "/") if file != "itself" else path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _scan(*paths: Path, toplevel: Path | None = None, flake: Path | None = None) -> StoreScan:
    return scan_closure(Closure(paths=paths, toplevel=toplevel, flake=flake))


def test_a_canary_is_found_and_not_repeated(tmp_path: Path) -> None:
    etc = _path(tmp_path, "etc", token=f"x {CANARY} y")
    app = _path(tmp_path, "app", binary=b"\0" + CANARY.encode())
    docs = _path(tmp_path, "docs", share__doc__example=CANARY)
    key = _path(
        tmp_path, "key", itself=f"-----BEGIN OPENSSH PRIVATE KEY-----\n{'ABCDEFGHIJKLMNOPQR' * 5}\n"
    )
    scan = _scan(etc, app, docs, key)
    assert scan.paths == 4
    assert scan.secrets == tuple(
        sorted((f"{etc}/token:1: pytest-nixos canary (pyte…)", f"{key}:1: private key (----…)"))
    )
    assert scan.private_keys == (f"{key}:1: private key (----…)",)
    assert CANARY not in repr(scan)
    assert f"not read: {app}/binary (binary)" in scan.told


def test_the_source_of_nixpkgs_is_left_out_and_told(tmp_path: Path) -> None:
    (tmp_path / "pkgs/top-level").mkdir(parents=True)
    (tmp_path / "nixos/modules").mkdir(parents=True)
    (tmp_path / "nixos/modules/key").write_text("AGE-SECRET-KEY-1" + "Q" * 58)
    scan = _scan(tmp_path)
    assert scan.secrets == ()
    assert "left out: the source of nixpkgs" in scan.told


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("etc-app.conf", {"itself": PASSWORD}),
        ("unit-app.service", {"app.service": PASSWORD}),
        ("app-start", {"bin__app-start": "#!/bin/sh\n" + PASSWORD}),
        ("app-config-1.2", {"app.conf": PASSWORD}),
        ("etc", {"etc__app__examples__app.conf": PASSWORD}),
    ],
)
def test_what_the_configuration_generates_is_read_whole(
    tmp_path: Path, name: str, files: dict[str, str]
) -> None:
    path = _path(tmp_path, name, **files)
    assert len(_scan(path).secrets) == 1


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("app-1.2", {"bin__app": "#!/bin/sh\n", "share__app__sample.conf": PASSWORD}),
        ("app", {"bin__app": b"\x7fELF\x02", "etc__sample.conf": PASSWORD}),
        ("source", {"sample.conf": PASSWORD}),
        ("many", {f"file-{n}": PASSWORD for n in range(401)}),
    ],
)
def test_packages_are_looked_through_for_tokens_with_a_prefix(
    tmp_path: Path, name: str, files: dict[str, str | bytes]
) -> None:
    assert _scan(_path(tmp_path, name, **files)).secrets == ()
    with_token = _path(tmp_path / "b", name, **files, etc__token=CANARY)
    assert len(_scan(with_token).secrets) == 1


def test_the_source_of_the_flake_itself_is_read_whole(tmp_path: Path) -> None:
    flake = _path(
        tmp_path, "source", **{"host.nix": '{ services.x.password = "Tr0ub4dor-and-3"; }'}
    )
    assert _scan(flake).secrets == ()
    assert len(_scan(flake, flake=flake).secrets) == 1


def test_files_are_named_as_in_etc(tmp_path: Path) -> None:
    conf = _path(tmp_path, "etc-app.conf", itself="# app\n" + PASSWORD)
    top = _path(
        tmp_path,
        "nixos-system-it-25.11",
        **{"kernel-params": "quiet systemd.set_credential=db:Tall-Tower-19"},
    )
    (top / "etc/app").mkdir(parents=True)
    (top / "etc/app/app.conf").symlink_to(conf)
    scan = _scan(conf, top, toplevel=top)
    assert scan.secrets == (
        "/etc/app/app.conf:2: password at the name password (Tr0…)",
        f"{top}/kernel-params:1: credential of systemd (Tal…)",
    )


def test_a_mark_that_a_script_replaces_is_no_secret(tmp_path: Path) -> None:
    mark = hashlib.sha256(b"/run/secrets/db").hexdigest()
    conf = _path(tmp_path, "app.conf", itself=f"db-password={mark}\n")
    assert len(_scan(conf).secrets) == 1
    script = _path(
        tmp_path, "start", itself=f"replace-secret '{mark}' /run/credentials/db app.conf\n"
    )
    assert _scan(conf, script).secrets == ()


def test_placeholders_are_told_and_not_counted(tmp_path: Path) -> None:
    conf = _path(tmp_path, "etc-app.conf", itself="password = changeme\n")
    scan = _scan(conf)
    assert scan.secrets == ()
    assert f"placeholders, not counted as secrets: {conf}:1" in scan.told


def _cpio(**files: str) -> bytes:
    def entry(name: str, content: bytes, mode: int) -> bytes:
        fields = [0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        return head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)

    entries = [entry(n.replace("__", "/"), c.encode(), 0o100644) for n, c in files.items()]
    return b"".join(entries) + entry("TRAILER!!!", b"", 0)


def _zstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, _zstd])
def test_the_initrd_is_opened(tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    microcode = _cpio(kernel__x86__microcode="\1") + b"\0" * 512
    content = _cpio(etc__app=PASSWORD, usr__lib__sample=PASSWORD, bin__key=CANARY)
    initrd = _path(tmp_path, "initrd", initrd=microcode + pack(content))
    top = _path(tmp_path, "nixos-system-it-25.11", system="x86_64-linux")
    (top / "initrd").symlink_to(initrd / "initrd")
    scan = _scan(top, toplevel=top)
    assert scan.secrets == (
        f"{initrd}/initrd:/bin/key:1: pytest-nixos canary (pyte…)",
        f"{initrd}/initrd:/etc/app:1: password at the name password (Tr0…)",
    )
    assert "initrd: 4 files read" in scan.told


@pytest.mark.parametrize(
    "content",
    [b"\x99" * 64, _cpio(a="b")[:-40], gzip.compress(_cpio(a="b"))[:-20]],
    ids=["no archive", "cut short", "compressed and cut short"],
)
def test_an_initrd_that_cannot_be_read_is_told(tmp_path: Path, content: bytes) -> None:
    top = _path(tmp_path, "nixos-system-it-25.11", initrd=content)
    with pytest.raises(UnreadableInitrd):
        list(initrd_files(top / "initrd"))
    assert f"not read: {top}/initrd (" in _scan(top, toplevel=top).told


def _entry() -> tuple[Path, PathScan]:
    hit = Hit(line=1, kind="private key", shown="----…")
    scan = PathScan(own=True, files=1, unread=("x (binary)",), hits=(("f", hit),), marks=("m",))
    return Path(f"/nix/store/{HASH}-etc"), scan


def _kept(tmp_path: Path) -> Path:
    path, scan = _entry()
    file = tmp_path / "closures" / "scans.json"
    cache = ScanCache(file=file)
    cache.put(path, scan, own=False)
    cache.put(tmp_path / "elsewhere", scan, own=False)
    cache.write()
    return file


def test_scans_are_kept_by_store_path(tmp_path: Path) -> None:
    path, scan = _entry()
    file = _kept(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert ScanCache(file=file).get(path, own=False) == scan
    assert ScanCache(file=file).get(path, own=True) is None
    assert ScanCache(file=file).get(tmp_path / "elsewhere", own=False) is None


def test_a_cache_that_others_can_write_is_not_believed(tmp_path: Path) -> None:
    path, _ = _entry()
    file = _kept(tmp_path)
    file.parent.chmod(0o770)
    assert ScanCache(file=file).get(path, own=False) is None
    file.parent.chmod(0o700)
    file.chmod(0o606)
    assert ScanCache(file=file).get(path, own=False) is None
    file.chmod(0o600)
    real = file.rename(file.with_name("real.json"))
    file.symlink_to(real)
    assert ScanCache(file=file).get(path, own=False) is None


@pytest.mark.parametrize(
    "content", ["", "[]", '{"rules": 1}', '{"rules": 0, "scans": {}}', "{" * 9999]
)
def test_a_damaged_cache_counts_as_absent(tmp_path: Path, content: str) -> None:
    path, _ = _entry()
    file = _kept(tmp_path)
    file.write_text(content)
    assert ScanCache(file=file).get(path, own=False) is None


def test_a_kept_scan_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"
    conf = _path(store, "etc-app.conf", itself=PASSWORD)
    file = tmp_path / "closures" / "scans.json"
    first = scan_closure(Closure(paths=(conf,)), cache=ScanCache(file=file))
    assert len(first.secrets) == 1
    conf.chmod(0o200 if os.geteuid() else 0o600)
    conf.write_text(
        "nothing\n"
    )  # a real store path does not change: the scan must come from the cache
    assert scan_closure(Closure(paths=(conf,)), cache=ScanCache(file=file)) == first
    assert scan_closure(Closure(paths=(conf,))).secrets == ()


def test_a_scan_with_other_rules_is_not_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, scan = _entry()
    file = _kept(tmp_path)
    assert ScanCache(file=file).get(path, own=False) == scan
    monkeypatch.setattr("pytest_nixos.standards.sources.scan_cache.rules_version", lambda: "newer")
    assert ScanCache(file=file).get(path, own=False) is None


def test_no_more_is_told_than_anybody_reads(tmp_path: Path) -> None:
    conf = _path(tmp_path, "etc-app.conf", itself=PASSWORD * 250)
    assert _scan(conf).secrets[-1] == "and 50 more"
