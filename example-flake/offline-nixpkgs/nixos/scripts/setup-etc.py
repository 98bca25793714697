"""Link the entries of a generation's etc tree into /etc, and remove those that the last generation had and this one has not.

It runs while the guest boots, so it keeps to `os`: each further import is time.
"""

import os
import sys

ETC, STATIC, COPIES = "/etc", "/etc/static", "/etc/.clean"


def read(path):
    with open(path) as file:
        return file.read()


def replace_link(target, link):
    if os.path.islink(link) and os.readlink(link) == target:
        return
    temporary = f"{link}.tmp"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(target, temporary)
    try:
        os.replace(temporary, link)
    except OSError as error:  # A container runtime may have mounted something there.
        os.unlink(temporary)
        print(f"could not create symlink {link}: {error.strerror}", file=sys.stderr)


def is_static(path):
    """Tell whether a path is a link of ours, or a folder that holds only such links."""
    if os.path.islink(path):
        return os.readlink(path).startswith(STATIC + "/")
    return os.path.isdir(path) and all(is_static(f"{path}/{name}") for name in os.listdir(path))


def remove_tree(path):
    for folder, folders, files in os.walk(path, topdown=False):
        for name in files + folders:
            full = f"{folder}/{name}"
            os.rmdir(full) if os.path.isdir(full) and not os.path.islink(full) else os.unlink(full)
    os.rmdir(path)


def number(name, database):
    """The number of `+7`, or of a name in /etc/passwd or /etc/group; 0 for a name that is not there,
    as `int(getpwnam(...))` gives in setup-etc.pl.
    """
    if name.startswith("+"):
        return int(name[1:])
    rows = (line.split(":") for line in read(database).splitlines())
    return next((int(row[2]) for row in rows if row[0] == name), 0)


def install_copy(source, target):
    uid = number(read(f"{source}.uid").strip(), "/etc/passwd")
    gid = number(read(f"{source}.gid").strip(), "/etc/group")
    temporary = f"{target}.tmp"
    with open(source, "rb") as original, open(temporary, "wb") as copy:
        copy.write(original.read())
    os.chown(temporary, uid, gid)
    os.chmod(temporary, int(read(f"{source}.mode").strip(), 8))
    os.replace(temporary, target)


def install(tree):
    """Link or copy everything below `tree`; return the relative names of copies."""
    copies = set()
    for folder, folders, files in os.walk(tree):
        prefix = folder[len(tree) + 1 :]
        names = set(files) | {name for name in folders if os.path.islink(f"{folder}/{name}")}
        if prefix:
            os.makedirs(f"{ETC}/{prefix}", exist_ok=True)
        for name in sorted(names):
            stem, _, suffix = name.rpartition(".")
            if suffix in ("mode", "uid", "gid") and stem in names:
                continue
            source, relative = f"{folder}/{name}", f"{prefix}/{name}" if prefix else name
            target = f"{ETC}/{relative}"
            mode = read(f"{source}.mode").strip() if f"{name}.mode" in names else None
            if mode == "direct-symlink":
                replace_link(os.readlink(source), target)
            elif mode is not None:
                install_copy(source, target)
                copies.add(relative)
            elif os.path.isdir(target) and not os.path.islink(target) and not is_static(target):
                print(
                    f"warning: {target} directory contains user files. Symlinking may fail.",
                    file=sys.stderr,
                )
            else:
                if os.path.isdir(target) and not os.path.islink(target):
                    remove_tree(target)
                replace_link(f"{STATIC}/{relative}", target)
    return copies


def remove_obsolete():
    """Remove links into the static tree whose entry is gone."""
    for folder, folders, files in os.walk(ETC):
        for name in files + folders:
            path = f"{folder}/{name}"
            if (
                os.path.islink(path)
                and os.readlink(path).startswith(STATIC + "/")
                and not os.path.lexists(os.readlink(path))
            ):
                print(f"removing obsolete symlink '{path}'...", file=sys.stderr)
                os.unlink(path)


def main():
    tree = sys.argv[1]
    first = not os.path.lexists(STATIC)
    old = set(read(COPIES).splitlines()) if os.path.exists(COPIES) else set()
    replace_link(tree, STATIC)
    if not first:
        remove_obsolete()
    copies = install(tree)
    for relative in old - copies:
        if not os.path.lexists(f"{tree}/{relative}") and os.path.isfile(f"{ETC}/{relative}"):
            print(f"removing obsolete file '/etc/{relative}'...", file=sys.stderr)
            os.unlink(f"{ETC}/{relative}")
    with open(COPIES, "w") as file:
        file.write("".join(f"{name}\n" for name in sorted(copies)))
    open(f"{ETC}/NIXOS", "a").close()


main()
