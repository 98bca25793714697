"""Look for secrets in what a host's system needs at run time, in the store of this machine.

Two depths: the host's own files (what its configuration generates: ``environment.etc``, units,
scripts, the
toplevel with its kernel command line, the initrd) are read whole, with every rule. The files of
packages are
looked through for keys and for tokens with a prefix: their manuals and tests are full of names and
sample passwords.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_nixos.secrets.hit import Hit, template_marks
from pytest_nixos.secrets.scan import find_known_secrets, find_secrets
from pytest_nixos.secrets.shapes import words_everywhere
from pytest_nixos.standards.sources.flake_files import StoreScan
from pytest_nixos.standards.sources.initrd_files import InitrdFile, UnreadableInitrd, initrd_files
from pytest_nixos.standards.sources.scan_cache import PathScan, ScanCache

__all__ = ["Closure", "scan_closure"]

_PACKAGE_FILE_LIMIT = 512 * 1024
_OWN_FILE_LIMIT = 4 * 1024 * 1024
#: More files than this has nothing that a configuration generates.
_OWN_FILES = 400
#: A finding with more lines is read by nobody.
_MOST_TOLD = 200
_STORE_NAME = re.compile(r"^[0-9a-df-np-sv-z]{32}-(?P<name>.+)$")
_VERSION = re.compile(r"-\d[\w.+-]*$")
_PACKAGE_FOLDERS = ("bin", "sbin", "lib", "libexec", "share", "include")
#: What software brings along: examples, test keys and manuals, and millions of small files.
_HARMLESS = re.compile(
    rb"/(share/(doc|man|info|locale|zoneinfo|i18n|terminfo)|lib/modules|lib/firmware|tests?|"
    rb"testdata|"
    rb"test_data|examples?|fixtures|ovmf|site-packages|node_modules|lib/perl5|lib/python[0-9.]*)(/|"
    rb"$)"
)
_MANUALS = re.compile(rb"/share/(doc|man|info|locale|zoneinfo|i18n|terminfo)(/|$)")
_BINARY = (
    b".so", b".a", b".o", b".gz", b".xz", b".zst", b".ko",
    b".png", b".bin", b".pyc", b".mo", b".elc",
)  # fmt: skip
_PRIVATE_KEY = "private key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """What to scan.

    :param paths: the store paths that the system needs at run time.
    :param toplevel: the system itself, whose initrd is opened and whose ``/etc`` names the files
        that are found.
    :param flake: store path of the flake's own source; where the closure holds it, it is read
        whole.
    """

    paths: tuple[Path, ...]
    toplevel: Path | None = None
    flake: Path | None = None


@dataclass(slots=True)
class _Tally:
    """What was read and what was not, told with the verdict."""

    paths: Counter[str] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)
    placeholders: list[str] = field(default_factory=list)

    def told(self) -> str:
        own, package, initrd = (self.files[kind] for kind in ("own", "package", "initrd"))
        packages = f"{package} files of {self.paths['package']} packages"
        lines = [
            f"read whole: {own} files of the host's own in {self.paths['own']} store paths",
            f"searched for keys and tokens with a prefix: {packages}, without manuals and tests",
            f"initrd: {initrd or 'no'} files read",
        ]
        if self.paths["nixpkgs"]:
            lines.append("left out: the source of nixpkgs, which is public")
        lines += [f"not read: {reason}" for reason in self.unread[:20]]
        if self.placeholders:
            lines.append(
                "placeholders, not counted as secrets: " + ", ".join(self.placeholders[:10])
            )
        lines.append("not in the closure and not read: what is decrypted or written at run time")
        return "\n".join(lines)


def scan_closure(closure: Closure, *, cache: ScanCache | None = None) -> StoreScan:
    """Look for secrets in the files of a closure.

    :param cache: of earlier scans: a store path never changes.
    """
    tally = _Tally()
    found: list[tuple[str, Hit]] = []
    marks: set[str] = set()
    cache = cache or ScanCache(file=None)
    for path in closure.paths:
        if _is_nixpkgs(path):
            tally.paths["nixpkgs"] += 1
            continue
        own = path in (closure.toplevel, closure.flake)
        scan = cache.get(path, own=own)
        if scan is None:
            scan = _scan_path(path, own=own)
            cache.put(path, scan, own=own)
        kind = "own" if scan.own else "package"
        tally.paths[kind] += 1
        tally.files[kind] += scan.files
        tally.unread += scan.unread
        found += scan.hits
        marks.update(scan.marks)
    if closure.toplevel is not None:
        scan = _scan_initrd(closure.toplevel, cache)
        tally.files["initrd"] += scan.files
        # As one file it is too large or binary; it has just been opened.
        initrd = f"{(closure.toplevel / 'initrd').resolve()} ("
        tally.unread = [reason for reason in tally.unread if not reason.startswith(initrd)]
        tally.unread += scan.unread
        found += scan.hits
    cache.write()
    found = [(file, hit) for file, hit in found if not (hit.mark and hit.mark in marks)]
    names = _etc_names(closure.toplevel) if found and closure.toplevel is not None else {}
    return _summed(found, names, len(closure.paths), tally)


def _summed(
    found: list[tuple[str, Hit]], names: Mapping[str, str], paths: int, tally: _Tally
) -> StoreScan:
    hits = {_line(file, hit, names): hit for file, hit in found if not hit.placeholder}
    tally.placeholders += sorted(
        {f"{names.get(file, file)}:{hit.line}" for file, hit in found if hit.placeholder}
    )
    return StoreScan(
        paths=paths,
        secrets=_at_most(sorted(hits)),
        private_keys=tuple(
            sorted(k for k, hit in hits.items() if hit.kind.startswith(_PRIVATE_KEY))
        ),
        told=tally.told(),
    )


def _at_most(lines: list[str]) -> tuple[str, ...]:
    more = len(lines) - _MOST_TOLD
    return (*lines[:_MOST_TOLD], *([f"and {more} more"] if more > 0 else []))


def _line(file: str, hit: Hit, names: Mapping[str, str]) -> str:
    return f"{names.get(file, file)}:{hit.line}: {hit}"


def _etc_names(toplevel: Path) -> Mapping[str, str]:
    """Return the names in ``/etc`` of files in the store: a person knows these."""
    top = os.path.realpath(toplevel / "etc")
    names: dict[str, str] = {}
    for count, (root, folders, files) in enumerate(os.walk(top, followlinks=True)):
        if count > 2000 or root.count("/") > top.count("/") + 8:
            folders.clear()
        for name in files:
            path = f"{root}/{name}"
            names.setdefault(os.path.realpath(path), f"/etc/{path.removeprefix(f'{top}/')}")
    return names


def _is_nixpkgs(path: Path) -> bool:
    """Whether a store path is nixpkgs itself: public, with test keys, and in the closure of every
    flake's host.
    """
    return (path / "pkgs/top-level").is_dir() and (path / "nixos/modules").is_dir()


def _scan_path(path: Path, *, own: bool) -> PathScan:
    files = list(_files(os.fsencode(path), limit=_OWN_FILES + 1 if not own else None))
    if not (own or _is_generated(path, files)):
        return _scan_package(path)
    hits: list[tuple[str, Hit]] = []
    unread: list[str] = []
    marks: set[str] = set()
    count = 0
    for file in files:
        name = os.fsdecode(file)
        content = _text(file, limit=_OWN_FILE_LIMIT)
        if isinstance(content, str):
            unread += [f"{name} ({content})"] if content else []
            continue
        count += 1
        text = content.decode(errors="replace")
        hits += [(name, hit) for hit in find_secrets(text, name=_plain_name(name))]
        marks |= template_marks(text)
    return PathScan(
        own=True, files=count, unread=tuple(unread), hits=tuple(hits), marks=tuple(sorted(marks))
    )


def _scan_package(path: Path) -> PathScan:
    words = words_everywhere()
    hits: list[tuple[str, Hit]] = []
    count = 0
    for file in _files(os.fsencode(path), limit=None, skipped=_HARMLESS):
        if file.endswith(_BINARY):
            continue
        content = _text(file, limit=_PACKAGE_FILE_LIMIT)
        if isinstance(content, str):
            continue
        count += 1
        if any(word in content for word in words):
            text = content.decode(errors="replace")
            hits += [(os.fsdecode(file), hit) for hit in find_known_secrets(text)]
    return PathScan(own=False, files=count, unread=(), hits=tuple(hits))


def _plain_name(path: str) -> str:
    """Return a file's name without the store's hash."""
    name = path.rpartition("/")[2]
    match = _STORE_NAME.match(name)
    return match["name"] if match else name


def _is_generated(path: Path, files: list[bytes]) -> bool:
    """Whether the host's configuration made a store path, rather than a package's build.

    Nix keeps no note of that. A single file, a tree of links and a small folder of texts is
    generated. A package
    has programs for the processor, very many files, or a version in its name and the folders of
    one. A source in
    the store is another flake's.
    """
    if not path.is_dir():
        return True
    name = _plain_name(path.name)
    if len(files) > _OWN_FILES or name == "source" or name.endswith("-source"):
        return False
    if _VERSION.search(name) and any((path / folder).is_dir() for folder in _PACKAGE_FOLDERS):
        return False
    return not any(_is_program(file) for file in files)


def _is_program(file: bytes) -> bool:
    try:
        with open(file, "rb") as stream:  # noqa: PTH123 - names need not be UTF-8
            return stream.read(4) == b"\x7fELF"
    except OSError:
        return False


def _files(
    path: bytes, *, limit: int | None, skipped: re.Pattern[bytes] = _MANUALS
) -> Iterator[bytes]:
    # Bytes and os.path: a closure has hundreds of thousands of files, and their names need not be
    # UTF-8.
    if not os.path.isdir(path):  # noqa: PTH112
        yield path
        return
    count = 0
    for root, names, files in os.walk(path):
        names[:] = sorted(n for n in names if not skipped.search(b"%b/%b" % (root, n)))
        for name in sorted(files):
            file = b"%b/%b" % (root, name)
            if not os.path.islink(file):  # noqa: PTH114 - what it leads to is a store path of its own
                yield file
                count += 1
            if limit is not None and count >= limit:
                return


def _text(file: bytes, *, limit: int) -> bytes | str:
    """Return a file's content, or why it is not looked at; ``""`` where nobody needs to know."""
    try:
        status = os.lstat(file)
        if (status.st_mode & 0o170000) != 0o100000 or status.st_size == 0:
            return ""
        if status.st_size > limit:
            return f"{status.st_size >> 20} MiB"
        with open(file, "rb") as stream:  # noqa: PTH123 - as above
            head = stream.read(4096)
            return "binary" if b"\0" in head else head + stream.read()
    except OSError as err:
        return err.strerror or "unreadable"


def _scan_initrd(toplevel: Path, cache: ScanCache) -> PathScan:
    initrd = toplevel / "initrd"
    if not initrd.exists():
        return PathScan(own=True, files=0, unread=(), hits=())
    real = initrd.resolve()
    scan = cache.get(real, own=True)
    if scan is None:
        scan = _scan_files(real, initrd_files(real))
        cache.put(real, scan, own=True)
    return scan


def _scan_files(initrd: Path, files: Iterable[InitrdFile]) -> PathScan:
    hits: list[tuple[str, Hit]] = []
    count = 0
    unread: tuple[str, ...] = ()
    try:
        for file in files:
            if not file.content or b"\0" in file.content[:4096]:
                continue
            count += 1
            text = file.content.decode(errors="replace")
            own = not file.of_package
            name = _plain_name(file.name)
            found = find_secrets(text, name=name) if own else find_known_secrets(text)
            hits += [(f"{initrd}:/{file.name}", hit) for hit in found]
    except UnreadableInitrd as err:
        unread = (f"{initrd} ({err})",)
    return PathScan(own=True, files=count, unread=unread, hits=tuple(hits))
