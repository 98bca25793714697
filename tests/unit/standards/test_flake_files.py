"""Files of a flake and of a closure."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos.standards.flake_files import flake_directory, read_flake


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
    (tmp_path / ".git").mkdir()
    for name, tracked in (("flake.nix", False), ("sub/flake.lock", False), ("flake.lock", True)):
        entry = len(name).to_bytes(2) + name.encode() + b"\0\0"
        (tmp_path / ".git/index").write_bytes(b"DIRC\0\0\0\2\0\0\0\1" + entry)
        assert read_flake(tmp_path).lock_tracked is tracked, name
    (tmp_path / ".git/index").write_bytes(b"DIRC\0\0\0\4\0\0\0\1")
    assert read_flake(tmp_path).lock_tracked is None
    assert read_flake(tmp_path / "none").lock is None


@pytest.mark.parametrize("url", ["{0}/sub", "path:{0}/sub", "git+file://{0}?ref=main&dir=sub"])
def test_directory_of_a_local_flake(tmp_path: Path, url: str) -> None:
    (tmp_path / "sub").mkdir()
    assert flake_directory(url.format(tmp_path)) == tmp_path / "sub"
    assert flake_directory("github:owner/repo?dir=sub") is None
