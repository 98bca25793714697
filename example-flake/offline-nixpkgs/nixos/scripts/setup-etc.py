"""Link the entries of a generation's etc tree into /etc, and remove those that the last generation had and this one has not."""

import os
import pwd
import grp
import shutil
import sys
from pathlib import Path

ETC = Path("/etc")
STATIC = ETC / "static"
CLEAN = ETC / ".clean"


def replace_link(target: str, link: Path) -> None:
    temporary = link.with_name(f".{link.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def is_static(path: Path) -> bool:
    """Tell whether a path is a link of ours, or a folder that holds only such links."""
    if path.is_symlink():
        return os.readlink(path).startswith("/etc/static/")
    return path.is_dir() and all(is_static(child) for child in path.iterdir())


def number(name: str, lookup) -> int:
    return int(name[1:]) if name.startswith("+") else lookup(name)


def install_copy(source: Path, relative: Path, target: Path) -> None:
    def attribute(suffix: str) -> str:
        return source.with_name(f"{source.name}.{suffix}").read_text().strip()

    uid = number(attribute("uid"), lambda name: pwd.getpwnam(name).pw_uid)
    gid = number(attribute("gid"), lambda name: grp.getgrnam(name).gr_gid)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.copyfile(source, temporary)
    os.chown(temporary, uid, gid)
    os.chmod(temporary, int(attribute("mode"), 8))
    temporary.replace(target)


def install(tree: Path) -> set[str]:
    """Link or copy everything below `tree`; return the relative names of copies."""
    copies: set[str] = set()
    for folder, folders, files in os.walk(tree):
        relative_folder = Path(folder).relative_to(tree)
        linked = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in linked + files:
            if name.endswith((".mode", ".uid", ".gid")) and (Path(folder) / name).stem in linked + files:
                continue
            source, relative = Path(folder) / name, relative_folder / name
            target = ETC / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            mode = source.with_name(f"{name}.mode")
            if mode.exists() and mode.read_text().strip() == "direct-symlink":
                replace_link(os.readlink(source), target)
            elif mode.exists():
                install_copy(source, relative, target)
                copies.add(str(relative))
            elif target.is_dir() and not target.is_symlink():
                if is_static(target):
                    shutil.rmtree(target)
                    replace_link(str(STATIC / relative), target)
                else:
                    print(f"warning: {target} directory contains user files. Symlinking may fail.", file=sys.stderr)
            else:
                replace_link(str(STATIC / relative), target)
    return copies


def remove_obsolete() -> None:
    """Remove links into the static tree whose entry is gone."""
    for folder, folders, files in os.walk(ETC):
        if folder == str(ETC) and "static" in folders:
            folders.remove("static")
        for name in files + [name for name in folders if (Path(folder) / name).is_symlink()]:
            path = Path(folder) / name
            if path.is_symlink() and os.readlink(path).startswith("/etc/static/") and not os.path.lexists(os.readlink(path)):
                print(f"removing obsolete symlink '{path}'...", file=sys.stderr)
                path.unlink()


def main() -> None:
    tree = Path(sys.argv[1])
    old = set(CLEAN.read_text().split("\n")) - {""} if CLEAN.exists() else set()
    replace_link(str(tree), STATIC)
    remove_obsolete()
    copies = install(tree)
    for relative in old - copies:
        if not (tree / relative).exists() and (ETC / relative).is_file():
            print(f"removing obsolete file '/etc/{relative}'...", file=sys.stderr)
            (ETC / relative).unlink()
    CLEAN.write_text("".join(f"{name}\n" for name in sorted(copies)))
    (ETC / "NIXOS").touch()


main()
