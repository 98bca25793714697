"""The image of a host's store: made once for each closure and kept, where nixpkgs' run script makes
it anew at each start.

``nixos/modules/virtualisation/qemu-vm.nix`` (``useNixStoreImage`` without ``writableStore``) names the
paths that belong into it: the file ``store-paths`` of a ``closureInfo``. Until 24.11 it lets mkfs.erofs
walk all of ``/nix/store`` and leave out what is not among them by one regular expression, which takes
minutes where the store is large; since then it packs the paths with tar. Here the image is made in the
later way, and the script is started without its own. A script that does it in any other way is left
as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from pytest_nixos.errors import MachineError, NixosError
from pytest_nixos.local.copy_file import copy_content
from pytest_nixos.local.dirs import cache_directory, make_private
from pytest_nixos.local.locks import hold_exclusive
from pytest_nixos.local.process import Runner, find_tool
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.snapshot.limits import CacheLimits

__all__ = ["STORE_IMAGE", "ImageBlock", "StoreImages"]

#: Where the script and QEMU have it, below ``$TMPDIR``.
STORE_IMAGE = "store.img"

_LIMIT_S = 600.0
_POLL_S = 0.2
_YOUNG_S = 3600.0
_MIB = 1 << 20
_NEW = ".new-"
_INSTEAD = ": # pytest-nixos has made the image of the store\n"
_NO_PACKER = "install GNU tar and bash; the run script makes its image itself until then"
_STORE_PATH = re.compile(r"/nix/store/[0-9a-z]{32}-[0-9A-Za-z+._?=-]+")
_CLOSURE = re.compile(r"(/nix/store/[0-9A-Za-z+._?=-]+/store-paths)(?![\w-])")
_MKFS = re.compile(r"(?:^|[\s(|])((?:/[^\s\"'`;|&()$]*/)?mkfs\.erofs)\s")
_TARGET = re.compile(r"(?:\"\$TMPDIR\"/store\.img|\"\$TMPDIR/store\.img\")(?=\s)")
_REMOVAL = re.compile(rf"^[ \t]*rm -f {_TARGET.pattern}[ \t]*\n", re.MULTILINE)
_SEARCHED = re.compile(r"^\s*export PATH=([^$\"'\s]+)", re.MULTILINE)
_PACK = """set -o pipefail
"$4" --create --directory /nix/store --verbatim-files-from --files-from "$1" --sort=name \\
  --owner 0 --group 0 --numeric-owner |
  "$2" --quiet --tar=f -T 0 --force-uid=0 --force-gid=0 -L nix-store \\
    -U eb176051-bd15-49b7-9e6b-462e0b467019 "$3"
"""


class ImageBlock(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a run script that makes the image of the store.

    :param text: as it stands in the script.
    :param closure: file that names the paths, one a line.
    :param mkfs: the mkfs.erofs that the script runs.
    """

    text: str
    closure: Path
    mkfs: Path

    @classmethod
    def of(cls, script: str) -> ImageBlock | None:
        """Find it; ``None`` where there is none, or more than one, or it is of another form."""
        found = [block for block in _commands(script) if "mkfs.erofs" in block]
        if len(found) != 1:
            return None
        (text,) = found
        closures, programs = set(_CLOSURE.findall(text)), set(_MKFS.findall(text))
        if len(closures) != 1 or len(programs) != 1 or len(_TARGET.findall(text)) != 1:
            return None
        mkfs = _program(programs.pop(), script)
        return None if mkfs is None else cls(text=text, closure=Path(closures.pop()), mkfs=mkfs)

    def left_out_of(self, script: str) -> str:
        """Return a script's text without it, and without what removes an image beforehand."""
        return _REMOVAL.sub("", script.replace(self.text, _INSTEAD, 1))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the paths below ``/nix/store``, sorted.

        :raises MachineError: if the file cannot be read, or holds anything else.
        """
        try:
            lines = self.closure.read_text().split()
        except (OSError, UnicodeDecodeError) as err:
            raise _unmade(f"{self.closure}: {err}") from err
        if not lines or not all(map(_STORE_PATH.fullmatch, lines)):
            raise _unmade(f"{self.closure}: holds more than store paths")
        return tuple(sorted({line.removeprefix("/nix/store/") for line in lines}))


class StoreImages:
    """Images by what is in them, and by the program that made them: one that a stranger's flake
    brought makes none for others.

    :param directory: made on first use, readable by its owner only.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def of_user(cls) -> StoreImages:
        """Return those of the user who runs this."""
        return cls(cache_directory("store-images"))

    def give(
        self,
        block: ImageBlock,
        target: Path,
        *,
        confined: Callable[[Path], Runner],
        say: Callable[[str], None],
        deadline: Deadline,
    ) -> None:
        """Put the image of a closure where a machine may write to it; it is made if there is none.

        :param target: of the machine alone; replaced if it is there.
        :param confined: makes what runs the flake's mkfs.erofs, which may write to one directory.
        :param say: told in a line when one is made.
        :raises MachineError: if it cannot be made.
        """
        names = block.names
        limit = deadline.within(_LIMIT_S)
        try:
            image = self.directory / f"{_key(names, block.mkfs)}.img"
            make_private(self.directory)
            with contextlib.ExitStack() as stack:
                self._wait_for_turn(stack, image, limit)
                if not image.exists():
                    self._make(block, names, image, confined=confined, say=say, deadline=limit)
                os.utime(image)
                source = stack.enter_context(image.open("rb"))
                target.unlink(missing_ok=True)
                # What a guest writes to its store's disk stays its own.
                with target.open("xb") as own:
                    copy_content(source, own)
                target.chmod(0o600)
        except OSError as err:
            target.unlink(missing_ok=True)
            raise _unmade(str(err)) from err

    def sizes(self) -> dict[Path, int]:
        """List the images, used least recently first, with the room that they take."""
        states = {}
        for path in self.directory.glob("*.img"):
            with contextlib.suppress(FileNotFoundError):  # another session removes some, too
                states[path] = path.stat()
        return {
            path: states[path].st_size for path in sorted(states, key=lambda p: states[p].st_mtime)
        }

    def prune(self, limits: CacheLimits) -> int:
        """Remove what is too old or too much; return how many. A machine has a copy of its own."""
        for left in self.directory.glob(f"{_NEW}*"):
            if _age_s(left) > _YOUNG_S:
                shutil.rmtree(left, ignore_errors=True)
        sizes, removed = self.sizes(), 0
        room = sum(sizes.values())
        for path, size in sizes.items():
            if room > limits.most_bytes or _age_s(path) > limits.most_age_s:
                path.unlink(missing_ok=True)
                path.with_suffix(".lock").unlink(missing_ok=True)
                room, removed = room - size, removed + 1
        return removed

    def _wait_for_turn(self, stack: contextlib.ExitStack, image: Path, deadline: Deadline) -> None:
        """Wait while another process makes this image."""

        def attempt() -> bool | None:
            with contextlib.ExitStack() as attempted:
                if hold_exclusive(attempted, image.with_suffix(".lock")):
                    stack.push(attempted.pop_all())
                    return True
            return None

        if not poll(attempt, deadline=deadline, interval_s=_POLL_S):
            raise _unmade("another process makes it, and does not end")

    def _make(
        self,
        block: ImageBlock,
        names: tuple[str, ...],
        image: Path,
        *,
        confined: Callable[[Path], Runner],
        say: Callable[[str], None],
        deadline: Deadline,
    ) -> None:
        say(f"making the image of its store: {len(names)} paths")
        started_s = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=_NEW, dir=self.directory) as directory:
            draft, listed = Path(directory, STORE_IMAGE), Path(directory, "names")
            listed.write_text("".join(f"{name}\n" for name in names))
            programs = [find_tool(name, remedy=_NO_PACKER) for name in ("bash", "tar")]
            bash, tar = map(os.path.realpath, programs)
            made = confined(Path(directory)).run(
                (bash, "-c", _PACK, "pack", str(listed), str(block.mkfs), str(draft), tar),
                deadline=deadline,
            )
            if made.exit_status != 0 or not _is_own_file(draft):
                raise _unmade(f"{block.mkfs}: {made.stderr_text.strip()[-300:]}")
            draft.rename(image)
        took_s = time.monotonic() - started_s
        say(f"made the image of its store: {image.stat().st_size // _MIB} MiB in {took_s:.1f} s")


def _commands(script: str) -> Iterator[str]:
    """Yield the commands of a script as nixpkgs lays them out: whole lines, joined where one goes on
    in the next, or stands in parentheses of its own.
    """
    gathered: list[str] = []
    inside = False
    for line in script.splitlines(keepends=True):
        gathered.append(line)
        word = line.strip()
        inside = word == "(" or (inside and word != ")")
        if not inside and not word.endswith(("\\", "|")):
            yield "".join(gathered)
            gathered = []


def _program(name: str, script: str) -> Path | None:
    """Find a program as the script does: by its path, or in the directories that it searches."""
    own = [d for found in _SEARCHED.findall(script) for d in found.split(":") if d]
    searched = None if name.startswith("/") else os.pathsep.join([*own, os.environ.get("PATH", "")])
    path = shutil.which(name, path=searched)
    return None if path is None else Path(path)


def _is_own_file(path: Path) -> bool:
    """Whether a file is one that the sandbox made, and no other name of one of this machine's."""
    try:
        state = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(state.st_mode) and state.st_nlink == 1


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _key(names: tuple[str, ...], mkfs: Path) -> str:
    program = os.path.realpath(mkfs)
    state = os.stat(program)  # noqa: PTH116 - realpath gives text
    parts = (_PACK, program, f"{state.st_size} {state.st_mtime_ns}", *names)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _unmade(why: str) -> NixosError:
    return MachineError(
        f"the image of the store cannot be made here: {why}",
        remedy="nothing: the run script makes it itself",
    )
