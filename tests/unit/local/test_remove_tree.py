"""Trees go away whole, and nothing outside of them changes, not even a mode."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_nixos.local.remove_tree import remove_tree

ROOT = os.geteuid() == 0


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory beside the tree, with a file of another's."""
    place = tmp_path / "outside"
    place.mkdir(mode=0o755)
    (place / "precious").write_text("x")
    place.chmod(0o555)
    return place


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "shared/tree"
    (path / "a/b").mkdir(parents=True)
    (path / "a/b/file").write_text("x")
    path.parent.chmod(0o1777)
    return path


def test_all_of_it_goes(tree: Path) -> None:
    os.mkfifo(tree / "a/pipe")
    (tree / "a/dangling").symlink_to("/nowhere")
    (tree / os.fsdecode(b"a/\xff\n")).touch()
    remove_tree(tree)
    assert not os.path.lexists(tree)


def test_a_tree_that_is_gone_leaves_its_parents_mode(tree: Path) -> None:
    """The parent was /tmp, and it became 0700: nobody else could use the machine any more."""
    remove_tree(tree / "never")
    remove_tree(tree)
    remove_tree(tree)
    assert mode(tree.parent) == 0o1777
    remove_tree(tree / "deep/in/nothing")


def test_links_out_of_the_tree_are_removed_and_not_followed(tree: Path, outside: Path) -> None:
    (tree / "a/link").symlink_to(outside)
    (tree / "a/b/up").symlink_to("../../..")
    remove_tree(tree)
    assert not tree.exists()
    assert mode(outside) == 0o555
    assert (outside / "precious").read_text() == "x"


def test_a_link_in_the_trees_place_is_removed_itself(tmp_path: Path, outside: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(outside)
    remove_tree(link)
    assert not os.path.lexists(link)
    assert (outside / "precious").exists()


def test_a_name_that_becomes_a_link_meanwhile_leads_nowhere(
    tree: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if another user replaced a directory between the look at it and the work on it."""
    real = os.listdir

    def listdir(place: int) -> list[str]:
        names = real(place)
        if "b" in names:
            (tree / "a/b").rename(tree / "a/hidden")
            (tree / "a/b").symlink_to(outside)
        return names

    monkeypatch.setattr(os, "listdir", listdir)
    remove_tree(tree)
    monkeypatch.undo()
    assert (outside / "precious").exists()
    assert mode(outside) == 0o555


def test_directories_deeper_than_descriptors_allow(tree: Path) -> None:
    handle = os.open(tree, os.O_RDONLY)
    for _ in range(400):
        os.mkdir("d", dir_fd=handle)
        below = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)
    remove_tree(tree)
    assert not tree.exists()


@pytest.mark.skipif(not ROOT, reason="becomes another user")
def test_without_write_permission(tree: Path) -> None:
    (tree / "a/b").chmod(0o000)
    (tree / "a").chmod(0o500)
    for path in (tree.parent, tree, tree / "a", tree / "a/b", tree / "a/b/file"):
        os.chown(path, 65534, 65534)
    # The directories above, and Python itself, are closed to others.
    script = """
import os, sys
from pathlib import Path
from pytest_nixos.local.remove_tree import remove_tree
os.chdir(sys.argv[1])
os.setresuid(65534, 65534, 65534)
remove_tree(Path("tree"))
"""
    subprocess.run([sys.executable, "-c", script, str(tree.parent)], check=True)
    assert not tree.exists()


@pytest.mark.skipif(not ROOT, reason="chattr needs root")
def test_immutable_directories_and_files(tree: Path) -> None:
    for path in (tree / "a/b/file", tree / "a/b"):
        done = subprocess.run(["chattr", "+i", str(path)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"no chattr here: {done.stderr.decode()}")
    remove_tree(tree)
    assert not tree.exists()


@pytest.mark.skipif(not ROOT, reason="mounts need root")
def test_what_is_mounted_below_it_stays(tree: Path, outside: Path) -> None:
    """A container's run directory whose bind mount was left behind is the machine's own store."""
    script = (
        f"mount --bind {outside} {tree}/a/b && {sys.executable} -c "
        f"'from pathlib import Path; from pytest_nixos.local.remove_tree import remove_tree; remove_tree(Path(\"{tree}\"))'"
        f"; ls {tree}/a/b"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    if "mount" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr}")
    assert done.stdout == "precious\n"
    assert (outside / "precious").exists()
