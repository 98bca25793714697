"""Make a copy of a Debian tree run where it lies.

Called with the tree, whose programs do the work, and the copy, whose path is the one that it is kept at.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

UNPACKED, ROOT = (Path(argument) for argument in sys.argv[1:])
LIBRARIES = ROOT / "usr/lib/x86_64-linux-gnu"
LOADER = ROOT / "usr/lib64/ld-linux-x86-64.so.2"
#: The run path of every program. Libraries have none, so that what they load, as libc loads NSS modules,
#: is looked for along the program's.
RUN_PATH = ":".join(
    str(folder) for folder in (LIBRARIES, LIBRARIES / "systemd", ROOT / "usr/libexec/sudo")
)
#: Names that Debian's `update-alternatives` would make.
ALTERNATIVES = {
    "usr/bin/awk": "gawk",
    "usr/bin/which": "which.debianutils",
    "usr/bin/nc": "nc.openbsd",
    "usr/bin/pager": "less",
} | {
    f"usr/sbin/{name}": "xtables-nft-multi"
    for family in ("iptables", "ip6tables")
    for name in (family, f"{family}-save", f"{family}-restore")
}
PERL_LIBRARIES = (
    "etc/perl",
    "usr/lib/x86_64-linux-gnu/perl5/5.40",
    "usr/share/perl5",
    "usr/lib/x86_64-linux-gnu/perl-base",
    "usr/lib/x86_64-linux-gnu/perl/5.40",
    "usr/share/perl/5.40",
)
#: The machine of an ELF file: firmware for others is in the tree too.
X86_64 = b"\x3e\x00"
SHEBANG = re.compile(rb"\A#! ?(?:/usr)?/s?bin/(?:env (?:-S )?)?([a-z0-9.]+)")


def patchelf(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run the unpacked tree's patchelf by that tree's loader, on whatever distribution this is."""
    loader = UNPACKED / "usr/lib64/ld-linux-x86-64.so.2"
    libraries, program = UNPACKED / "usr/lib/x86_64-linux-gnu", UNPACKED / "usr/bin/patchelf"
    command = [str(loader), "--library-path", str(libraries), str(program), *arguments]
    return subprocess.run(command, check=False, capture_output=True)


def relocate_binary(path: Path) -> None:
    interpreter = patchelf("--print-interpreter", str(path)).stdout.strip()
    # libc and a few more libraries can be started too.
    if interpreter.endswith(b"/ld-linux-x86-64.so.2") and ".so" not in path.name:
        # Sorted section headers break programs that are not position independent, Python's among them.
        patchelf(
            "--no-sort",
            "--set-interpreter",
            str(LOADER),
            "--force-rpath",
            "--set-rpath",
            RUN_PATH,
            str(path),
        ).check_returncode()
    elif patchelf("--print-rpath", str(path)).stdout.strip():
        patchelf("--remove-rpath", str(path)).check_returncode()


def relocate_script(path: Path, content: bytes) -> None:
    found = SHEBANG.match(content)
    if not found:
        return
    name = os.fsdecode(found[1])
    folder = next((f for f in ("usr/bin", "usr/sbin") if os.path.lexists(ROOT / f / name)), None)
    if folder:
        path.write_bytes(f"#!{ROOT}/{folder}/{name}".encode() + content[found.end() :])


def relocate_file(path: Path) -> None:
    """Rewrite a program, a library or a script; anything else stays as it is."""
    with path.open("rb") as file:
        start = file.read(20)
        if start.startswith(b"\x7fELF"):
            if start[18:] == X86_64:
                relocate_binary(path)
        elif start.startswith(b"#!"):
            relocate_script(path, start + file.read())


def regular_files() -> Iterator[Path]:
    for folder, subfolders, names in os.walk(ROOT / "usr"):
        if folder == str(ROOT / "usr/lib"):
            subfolders.remove("modules")
        for name in names:
            path = Path(folder, name)
            if stat.S_ISREG(path.lstat().st_mode):
                yield path


def add_alternatives() -> None:
    for path, target in ALTERNATIVES.items():
        (ROOT / path).unlink(missing_ok=True)
        (ROOT / path).symlink_to(target)


def wrap_perl() -> None:
    """Perl's library folders are compiled in: name them in its environment."""
    perl, real = ROOT / "usr/bin/perl", ROOT / "usr/bin/perl.real"
    perl.rename(real)
    libraries = ":".join(str(ROOT / folder) for folder in PERL_LIBRARIES)
    perl.write_text(
        f'#!{ROOT}/usr/bin/bash-static\nexport PERL5LIB="{libraries}${{PERL5LIB:+:$PERL5LIB}}"\n'
        f'exec -a "$0" {real} "$@"\n'
    )
    perl.chmod(0o755)


def make_links_relative() -> None:
    """An absolute link of Debian's is meant from the root of the tree."""
    for folder, subfolders, names in os.walk(ROOT):
        for name in (*subfolders, *names):
            path = Path(folder, name)
            if path.is_symlink() and (target := str(path.readlink())).startswith("/"):
                if target.startswith(("/etc/alternatives", "/dev", "/proc", "/run", "/nix")):
                    continue
                path.unlink()
                path.symlink_to(os.path.relpath(ROOT / target[1:], folder))


def main() -> None:
    add_alternatives()
    make_links_relative()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(relocate_file, list(regular_files())))
    wrap_perl()


if __name__ == "__main__":
    main()
