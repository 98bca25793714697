"""Files of a flake and of a closure."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.standards.sources.flake_files import flake_directory, read_flake


def test_reading_a_flake(tmp_path: Path) -> None:
    (tmp_path / "flake.lock").write_text('{"nodes": {}, "root": "root"}')
    (tmp_path / "flake.nix").write_text("{ }")
    (tmp_path / ".direnv").mkdir()
    (tmp_path / ".direnv/x.nix").write_text("<nixpkgs>")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/flake.nix").write_text("{ x = <nixpkgs>; }")
    flake = read_flake(tmp_path)
    assert flake.lock == {"nodes": {}, "root": "root"}
    assert flake.lock_tracked is None
    assert set(flake.sources) == {"flake.nix"}
    (tmp_path / "logo").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "locked.age").write_bytes(b"age-encryption.org/v1\n\0")
    (tmp_path / "wg0.conf").write_text("[Interface]\n")
    assert set(read_flake(tmp_path).sources) == {"flake.nix", "locked.age", "wg0.conf"}
    assert read_flake(tmp_path / "none").lock is None


def _git(directory: Path, *argv: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    done = SubprocessRunner().run(
        ("git", *identity, "-C", str(directory), *argv), deadline=Deadline.after(30)
    )
    assert done.exit_status == 0, done.stderr_text


def test_whether_git_tracks_the_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (tmp_path, tmp_path / "sub"):
        folder.mkdir(exist_ok=True)
        (folder / "flake.lock").write_text("{}")
    _git(tmp_path, "init", "--quiet")
    assert read_flake(tmp_path).lock_tracked is False
    _git(tmp_path, "add", "sub/flake.lock")
    assert read_flake(tmp_path).lock_tracked is False
    assert read_flake(tmp_path / "sub").lock_tracked is True
    _git(tmp_path, "add", "flake.lock")
    _git(tmp_path, "update-index", "--index-version", "4")
    assert read_flake(tmp_path).lock_tracked is True
    _git(tmp_path, "commit", "--quiet", "-m", "a")
    _git(tmp_path, "worktree", "add", "--quiet", str(tmp_path / "tree"))
    assert read_flake(tmp_path / "tree").lock_tracked is True
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert read_flake(tmp_path).lock_tracked is True


def test_the_repository_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "flake.lock").write_text("{}")
    _git(tmp_path, "init", "--quiet")
    _git(tmp_path, "add", "flake.lock")
    _git(tmp_path, "config", "core.fsmonitor", f"touch {tmp_path}/run; false")
    assert read_flake(tmp_path).lock_tracked is True
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("url", ["{0}/sub", "path:{0}/sub", "git+file://{0}?ref=main&dir=sub"])
def test_directory_of_a_local_flake(tmp_path: Path, url: str) -> None:
    (tmp_path / "sub").mkdir()
    assert flake_directory(url.format(tmp_path)) == tmp_path / "sub"
    assert flake_directory("github:owner/repo?dir=sub") is None
