"""The disk of a container: a sparse image of bounded size where this machine can mount one, else
a directory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pytest_nixos.errors import MachineError
from pytest_nixos.local.process import ProcessTimeout, Runner
from pytest_nixos.local.timing import Deadline

__all__ = ["IMAGE", "PLAIN", "ROOT", "STORE", "make_disk", "prepare_root"]

#: Names in the run directory: an image, or a directory in its place.
IMAGE = "disk.img"
PLAIN = "disk"
#: Names on the disk: the root directory, and what the guest adds to the store.
ROOT = "root"
STORE = "store"

# As much as a generous server's root; a guest that fills it must not fill this machine's disk.
_MOST_BYTES = 16 << 30
_LEAST_BYTES = 256 << 20
_SHARE = 0.5
_BLOCK = 1 << 20
_MAKE_S = 120.0

_DIRECTORIES = {
    "etc": 0o755,
    "nix/store": 0o755,
    "nix/var/nix/daemon-socket": 0o755,
    "nix/var/nix/db": 0o755,
    "nix/var/nix/gcroots": 0o755,
    "nix/var/nix/profiles": 0o755,
    "root": 0o700,
    "usr": 0o755,
    "var/lib/private": 0o700,
}
# nixos-container makes the first two; a host with networking.useHostResolvConf reads the third.
_FILES = ("etc/os-release", "etc/machine-id", "etc/resolv.conf")
_NOTHING: Mapping[str, str] = {}


def prepare_root(root: Path, toplevel: Path, more: Mapping[str, str] = _NOTHING) -> None:
    """Make the root directory of a new container, with `toplevel` as its first generation.

    :param more: texts of further files, by path below it.
    :raises MachineError: if it cannot be written.
    """
    try:
        root.mkdir(mode=0o755, parents=True)
        root.chmod(0o755)
        for name, mode in _DIRECTORIES.items():
            _make_directories(root, name, mode)
        for name in _FILES:
            (root / name).touch(mode=0o644)
        for name, text in more.items():
            (root / name).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            (root / name).write_text(text)
        profiles = root / "nix/var/nix/profiles"
        (profiles / "system-1-link").symlink_to(toplevel)
        (profiles / "system").symlink_to("system-1-link")
        (root / "nix/var/nix/gcroots/profiles").symlink_to("/nix/var/nix/profiles")
    except OSError as err:
        raise MachineError(
            f"{root}: the container's root directory cannot be made: {err.strerror}",
            remedy="free some space there, or set TMPDIR to a directory with room",
        ) from err


def make_disk(
    runner: Runner, run_dir: Path, *, deadline: Deadline, dev: Path = Path("/dev")
) -> str:
    """Turn the directory :data:`PLAIN` of a run directory into an image of bounded size, if that
    can be.

    The image has no journal: this machine's kernel outlives the container, and what it has not
    written back yet stays.

    :return: why the directory was left as it is and has no bound, ``""`` if it is an image now.
    """
    mkfs = shutil.which("mkfs.ext4") or shutil.which("mkfs.ext4", path="/usr/sbin:/sbin")
    if mkfs is None:
        return "this machine has no mkfs.ext4 (e2fsprogs)"
    if not os.access(dev / "loop-control", os.W_OK):
        return "this machine has no loop devices (modprobe loop)"
    image, seed = run_dir / IMAGE, run_dir / PLAIN
    size = _size(run_dir)
    argv = [
        *(mkfs, "-q", "-F", "-m", "0", "-O", "^has_journal"),
        *("-E", "lazy_itable_init=1,nodiscard,root_owner=0:0"),
        *("-d", str(seed), str(image), f"{size // _BLOCK}M"),
    ]
    try:
        done = runner.run(argv, deadline=deadline.within(_MAKE_S))
    except ProcessTimeout:
        if deadline.expired:
            raise
        image.unlink(missing_ok=True)
        return f"mkfs.ext4 took more than {_MAKE_S:g} s"
    if done.exit_status != 0:
        image.unlink(missing_ok=True)
        return f"mkfs.ext4: {done.stderr_text.strip().splitlines()[-1:] or ['failed']}"
    image.chmod(0o600)
    shutil.rmtree(seed)
    return ""


def _size(directory: Path) -> int:
    state = os.statvfs(directory)
    free = int(state.f_bavail * state.f_frsize * _SHARE)
    return max(_LEAST_BYTES, min(_MOST_BYTES, free))


def _make_directories(root: Path, name: str, mode: int) -> None:
    path = root
    for part in Path(name).parts:
        path /= part
        path.mkdir(mode=0o755, exist_ok=True)
    path.chmod(mode)
