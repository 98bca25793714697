"""Link the files of Debian packages under the folders that packages of nixpkgs have.

Unit files, services of D-Bus and rules of udev are copied: they name programs of a path that no NixOS host has.
So are the programs that the environment variable COPIED lists, as patterns of places in the package: stage 1 takes
them out of their packages.

Called with the tree, the folder to make, and the names of Debian packages.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

PROGRAMS, OUT = (Path(argument) for argument in sys.argv[1:3])
DEBS = sys.argv[3:]
#: The first that fits says where a file of Debian's goes.
PLACES = (
    ("bin", "bin"),
    ("sbin", "bin"),
    ("lib/x86_64-linux-gnu", "lib"),
    ("lib64", "lib"),
    ("lib", "lib"),
    ("usr/bin", "bin"),
    ("usr/sbin", "bin"),
    ("usr/lib/x86_64-linux-gnu", "lib"),
    ("usr/lib64", "lib"),
    ("usr/lib", "lib"),
    ("usr/libexec", "libexec"),
    ("usr/include", "include"),
    ("usr/share", "share"),
    ("etc", "etc"),
)
PACKAGES = json.loads((PROGRAMS / "packages.json").read_text())

UNITS = ("lib/systemd/system/", "lib/systemd/user/", "share/dbus-1/")
RULES = "lib/udev/rules.d/"
COPIED = os.environ.get("COPIED", "").split()
_PROGRAM = re.compile(
    r"^((?:Exec\w*|ConditionFileIsExecutable)=[-+@!:|]*)/(?:usr/)?(s?bin|lib|libexec)/",
    re.MULTILINE,
)
_BARE = re.compile(r"^(Exec\w+=[-+@!:|]*)(?=[a-z])", re.MULTILINE)
#: A program that a rule of udev names, and what a comment says of one: nixpkgs refuses that too.
_IN_RULE = re.compile(r"(?<![\w.-])/(?!bin/sh\b)(?:usr/)?((?:s?bin|lib)/[\w.@/-]*)")


def with_programs_of_the_tree(text: str) -> str:
    """Return a unit file whose commands are those of the tree."""
    return _BARE.sub(
        rf"\g<1>{PROGRAMS}/usr/bin/", _PROGRAM.sub(rf"\g<1>{PROGRAMS}/usr/\g<2>/", text)
    )


def with_programs_of_packages(text: str) -> str:
    """Return a file of udev's rules whose programs are those of this package, or else of the tree."""

    def found(match: re.Match[str]) -> str:
        file = f"usr/{match[1]}"
        own = place(file)
        mine = own and any(file in PACKAGES[deb]["files"] for deb in DEBS)
        return str(OUT / own if own and mine else PROGRAMS / file)

    return _IN_RULE.sub(found, text)


def put(target: Path, own: PurePosixPath) -> None:
    """Make one file of the package, unless an earlier Debian package has it."""
    path = OUT / own
    if os.path.lexists(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if str(own).startswith(UNITS) and target.is_symlink():
        path.symlink_to(target.readlink())
    elif str(own).startswith(UNITS):
        path.write_text(with_programs_of_the_tree(target.read_text()))
    elif str(own).startswith(RULES):
        path.write_text(with_programs_of_packages(target.read_text()))
    elif any(fnmatch(str(own), pattern) for pattern in COPIED):
        shutil.copy(target, path)
    else:
        path.symlink_to(target)


def place(file: str) -> PurePosixPath | None:
    """Where a package of nixpkgs keeps a file that Debian keeps at `file`."""
    for theirs, ours in PLACES:
        if file.startswith(f"{theirs}/"):
            return PurePosixPath(ours, file.removeprefix(f"{theirs}/"))
    return None


def main() -> None:
    """Make the package."""
    for deb in DEBS:
        for file in PACKAGES[deb]["files"]:
            target, own = PROGRAMS / file, place(file)
            if own and os.path.lexists(target):
                put(target, own)
    for folder in ("bin", "lib"):
        (OUT / folder).mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(OUT / "sbin"):
        (OUT / "sbin").symlink_to("bin")


main()
