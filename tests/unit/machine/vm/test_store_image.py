"""The image of a host's store: found in a run script, made once, never another's."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.local.process import Runner, SubprocessRunner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.snapshot.limits import CacheLimits
from pytest_nixos.machine.vm import store_image
from pytest_nixos.machine.vm.harmless import harmless_script
from pytest_nixos.machine.vm.run_script import parse_run_script
from pytest_nixos.machine.vm.store_image import ImageBlock, StoreImages

CLOSURE = "/nix/store/2jcrqlklnzq86kx9angk6y0pyvm0z5bl-closure-info/store-paths"
ONE = "/nix/store/" + 32 * "a" + "-one-1.0"
TWO = "/nix/store/" + 32 * "b" + "-two"
#: As nixos/modules/virtualisation/qemu-vm.nix lays them out: 24.05, 26.05, and with programs that are searched for.
UNTIL_24_11 = """
(
  cd /nix/store
  {mkfs} \\
    --force-uid=0 \\
    -T 0 \\
    --exclude-regex="$(
      <{closure} \\
        sed -e 's^.*/^^g' \\
      | cut -c -10 \\
      | /nix/store/x-python3/bin/python /nix/store/y-includes-to-excludes.py )" \\
    "$TMPDIR"/store.img \\
    . \\
    </dev/null >/dev/null
)
"""
SINCE = """
echo "Creating Nix store image..."

/nix/store/x-gnutar/bin/tar --create \\
  --absolute-names \\
  --transform 'flags=rSh;s|/nix/store/||' \\
  --files-from {closure} \\
  | {mkfs} \\
    --quiet \\
    --tar=f \\
    "$TMPDIR"/store.img

echo "Created Nix store image."
"""
SEARCHED = """
rm -f "$TMPDIR/store.img"
sed 's,^/nix/store/,,' {closure} |
  tar --create --directory /nix/store --files-from - |
  mkfs.erofs --quiet --tar=f "$TMPDIR/store.img"
"""
AROUND = """#!/bin/sh
export PATH={tools}${{PATH:+:}}$PATH
(
  echo something else
)
mkdir -p "$TMPDIR/xchg"
{block}
exec /nix/store/q-qemu/bin/qemu-kvm -drive file="$TMPDIR"/store.img,format=raw
"""


@pytest.fixture
def mkfs(tmp_path: Path) -> Path:
    """A mkfs.erofs that writes the names that tar gives it, and counts."""
    program = tmp_path / "tools" / "mkfs.erofs"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho made >> {tmp_path}/log\nsleep 0.2\nfor last; do :; done\ntar -t > "$last"\n'
    )
    program.chmod(0o755)
    return program


def block_of(mkfs: Path, closure: str = CLOSURE, shape: str = SINCE) -> ImageBlock:
    found = ImageBlock.of(script_of(mkfs, shape, closure))
    assert found is not None
    return found


def script_of(mkfs: Path, shape: str, closure: str = CLOSURE) -> str:
    block = shape.format(mkfs=mkfs, closure=closure)
    return AROUND.format(tools=mkfs.parent, block=block)


@pytest.mark.parametrize("shape", [UNTIL_24_11, SINCE, SEARCHED])
def test_the_block_is_found_and_nothing_else_is_left_out(mkfs: Path, shape: str) -> None:
    script = script_of(mkfs, shape)
    block = ImageBlock.of(script)
    assert block is not None
    assert (block.closure, block.mkfs) == (Path(CLOSURE), mkfs)
    left = block.left_out_of(script)
    assert "mkfs" not in left
    assert "rm -f" not in left
    lines = [line for line in script_of(mkfs, "").splitlines() if line]
    assert [line for line in left.splitlines() if line in lines] == lines


@pytest.mark.parametrize(
    "shape",
    [
        "",
        'qemu-img create -f qcow2 -b /nix/store/x-image/nixos.qcow2 "$TMPDIR"/store.img\n',
        SINCE + SINCE,  # which of them counts?
        SINCE.replace("{closure}", "/tmp/paths"),
        SINCE.replace("store.img", "other.img"),
        SINCE.replace("--quiet", f"--files-from {CLOSURE.replace('2j', '3j')}"),
        SINCE.replace("{mkfs}", "/nix/store/gone/bin/mkfs.erofs"),
    ],
)
def test_what_is_not_known_is_left_to_the_script(mkfs: Path, shape: str) -> None:
    assert ImageBlock.of(script_of(mkfs, shape)) is None


def test_the_started_script_is_a_copy_without_the_block(mkfs: Path, tmp_path: Path) -> None:
    path = tmp_path / "run-vm-vm"
    path.write_text(script_of(mkfs, SINCE))
    script = parse_run_script(path)
    assert harmless_script(script, tmp_path) == path
    copy = harmless_script(script, tmp_path, image_block=ImageBlock.of(script.text))
    assert copy != path
    assert "mkfs" not in copy.read_text()
    assert os.access(copy, os.X_OK)


class Given:
    """A cache of images, and a place that wants them."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images = StoreImages(tmp_path / "cache" / "images")
        self.target = tmp_path / "store.img"
        self.said: list[str] = []
        self.log = tmp_path / "log"
        self.closure = tmp_path / "store-paths"
        self.closure.write_text(f"{TWO}\n{ONE}\n")
        # Store paths of the test's own are packed where it made them.
        (tmp_path / "store").mkdir()
        for path in (ONE, TWO):
            (tmp_path / "store" / Path(path).name).write_text(path)
        packed = store_image._PACK.replace("/nix/store", str(tmp_path / "store"))
        monkeypatch.setattr(store_image, "_PACK", packed)

    def block(self, mkfs: Path) -> ImageBlock:
        return ImageBlock(text="x", closure=self.closure, mkfs=mkfs)

    def give(self, mkfs: Path, target: Path | None = None) -> str:
        self.images.give(
            self.block(mkfs),
            target or self.target,
            confined=confined,
            say=self.said.append,
            deadline=Deadline.after(20),
        )
        return (target or self.target).read_text()


def confined(_directory: Path) -> Runner:
    return SubprocessRunner()


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    return Given(tmp_path, monkeypatch)


def test_an_image_of_exactly_the_closure_is_made_once(given: Given, mkfs: Path) -> None:
    assert given.give(mkfs).split() == [Path(ONE).name, Path(TWO).name]
    given.target.write_text("what the guest wrote")
    assert given.give(mkfs).split() == [Path(ONE).name, Path(TWO).name]
    assert given.log.read_text() == "made\n"
    assert [line.partition(":")[0] for line in given.said] == [
        "making the image of its store",
        "made the image of its store",
    ]


def test_two_that_want_it_at_once_make_it_once(given: Given, mkfs: Path, tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=given.give, args=(mkfs, tmp_path / f"{n}.img")) for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert given.log.read_text() == "made\n"
    assert len({(tmp_path / f"{n}.img").read_text() for n in range(3)}) == 1


def test_another_closure_and_another_program_have_an_image_of_their_own(
    given: Given, mkfs: Path, tmp_path: Path
) -> None:
    given.give(mkfs)
    given.closure.write_text(f"{ONE}\n")
    assert given.give(mkfs).split() == [Path(ONE).name]
    # A flake that brings its own mkfs.erofs makes images for no other flake.
    strange = tmp_path / "strange"
    strange.write_text("#!/bin/sh\nfor last; do :; done\ncat >/dev/null\necho evil > $last\n")
    strange.chmod(0o755)
    assert given.give(strange) == "evil\n"
    assert given.give(mkfs).split() == [Path(ONE).name]


@pytest.mark.parametrize("fails", ["exit 1", "cat > /dev/null", "touch $5; cat >/dev/null; exit 3"])
def test_an_image_that_was_not_made_is_told_and_not_kept(
    given: Given, mkfs: Path, fails: str
) -> None:
    mkfs.write_text(f"#!/bin/sh\n{fails}\n")
    with pytest.raises(MachineError, match="the image of the store cannot be made here"):
        given.give(mkfs)
    assert not given.target.exists()
    assert not given.images.sizes()


@pytest.mark.parametrize(
    "left", ['ln -s {secret} "$last"', 'ln {secret} "$last"', 'mkfifo "$last"']
)
def test_a_flakes_mkfs_cannot_make_a_file_of_this_machine_an_image(
    given: Given, mkfs: Path, tmp_path: Path, left: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of this user")
    link = left.format(secret=secret)
    mkfs.write_text(f"#!/bin/sh\nfor last; do :; done\ncat >/dev/null\n{link}\n")
    with pytest.raises(MachineError, match="cannot be made here"):
        given.give(mkfs)
    assert not given.target.exists()
    assert not given.images.sizes()


def test_a_path_that_tar_cannot_read_is_no_image(given: Given, mkfs: Path, tmp_path: Path) -> None:
    (tmp_path / "store" / Path(TWO).name).unlink()
    with pytest.raises(MachineError, match="cannot be made here"):
        given.give(mkfs)
    assert not given.images.sizes()


@pytest.mark.parametrize(
    "listed", ["", "/etc/shadow\n", f"{ONE}/../../../etc\n", "--to-command=x\n"]
)
def test_a_list_of_anything_but_store_paths_is_refused(
    given: Given, mkfs: Path, listed: str
) -> None:
    given.closure.write_text(listed)
    with pytest.raises(MachineError, match="holds more than store paths"):
        given.give(mkfs)
    assert not given.log.exists()


def test_old_images_and_too_many_go(given: Given, mkfs: Path) -> None:
    given.give(mkfs)
    given.closure.write_text(f"{ONE}\n")
    given.give(mkfs)
    first, second = given.images.sizes()
    os.utime(first, (time.time() - 100,) * 2)
    assert given.images.prune(CacheLimits(most_age_s=1000.0)) == 0
    assert given.images.prune(CacheLimits(most_age_s=50.0)) == 1
    assert list(given.images.sizes()) == [second]
    assert given.images.prune(CacheLimits(most_bytes=1)) == 1


def test_an_image_that_another_session_removes_meanwhile_is_no_error(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = given.images.directory / "gone.img"
    monkeypatch.setattr(Path, "glob", lambda _self, pattern: [gone] if "img" in pattern else [])
    assert given.images.sizes() == {}
    assert given.images.prune(CacheLimits()) == 0
