"""Fill the folder of an initial RAM disk: each object with what its links lead to and the libraries that its programs need.

    make-initrd.py TREE CONTENTS ROOT

CONTENTS is JSON, a list of objects {"source": absolute path, "target": where it is linked in the RAM disk, or null}. What lies in TREE, the Debian
tree, lies at the same place of the RAM disk, whose root the tree's own path leads to: its programs look for their loader and libraries there.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

tree, contents, root = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
libraries = f"{tree}/usr/lib/x86_64-linux-gnu:{tree}/usr/lib/x86_64-linux-gnu/systemd"
loader = f"{tree}/usr/lib64/ld-linux-x86-64.so.2"
seen = set()


def place_of(path):
    """Where a path of the store lies in the RAM disk."""
    inside = path[len(tree) :] if path == tree or path.startswith(f"{tree}/") else path
    return root / inside.lstrip("/")


def needed_by(program):
    """The loader and libraries of a program or library."""
    told = subprocess.run([loader, "--library-path", libraries, "--list", program], capture_output=True, text=True)
    words = [line.split() for line in told.stdout.splitlines() if "=>" in line]
    return [loader, *(line[2] for line in words if line[2].startswith("/"))]


def copy_file(path, place):
    data = Path(path).read_bytes()
    place.write_bytes(data)
    place.chmod(os.stat(path).st_mode & 0o777 | 0o200)
    return needed_by(path) if data.startswith(b"\x7fELF") else []


def add(path):
    """Copy what a path names; return further paths that belong to it."""
    parts = path.lstrip("/").split("/")
    for count in range(1, len(parts) + 1):
        here = "/" + "/".join(parts[:count])
        place = place_of(here)
        if os.path.islink(here):
            leads = os.readlink(here)
            place.parent.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(place):
                place.symlink_to(leads)
            beyond = os.path.normpath(os.path.join(os.path.dirname(here), leads))
            return ["/".join([beyond, *parts[count:]])]
    place = place_of(path)
    if os.path.isdir(path):
        place.mkdir(parents=True, exist_ok=True)
        return [f"{path}/{name}" for name in sorted(os.listdir(path))]
    if not os.path.exists(path) or os.path.lexists(place):
        return []
    place.parent.mkdir(parents=True, exist_ok=True)
    return copy_file(path, place)


def main():
    tree_link = root / tree.lstrip("/")
    tree_link.parent.mkdir(parents=True)
    tree_link.symlink_to("/")
    for entry in contents:
        if not os.path.exists(entry["source"]):
            sys.exit(f"no such file: {entry['source']}")
        if entry["target"] is not None:
            place = root / entry["target"].lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(entry["source"])
    queue = [entry["source"] for entry in contents]
    while queue:
        path = queue.pop()
        if path not in seen:
            seen.add(path)
            queue.extend(add(path))


main()
