"""Files of a flake and of a closure."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos.standards.flake_files import flake_directory, read_flake, scan_closure


def test_a_canary_in_the_closure_is_found_and_not_repeated(tmp_path: Path) -> None:
    canary = "pytest-nixos-canary-" + "0123456789abcdef" * 2
    paths = [tmp_path / "a-etc", tmp_path / "b-app", tmp_path / "c-docs", tmp_path / "d-file"]
    for path in paths[:3]:
        path.mkdir()
    (paths[0] / "token").write_text(f"x {canary} y")
    (paths[1] / "binary").write_bytes(b"\0" + canary.encode())
    (paths[2] / "share/doc").mkdir(parents=True)
    (paths[2] / "share/doc/example").write_text(canary)
    paths[3].write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{'A' * 70}\n")
    scan = scan_closure(paths)
    assert scan.paths == 4
    assert scan.secrets == (f"{paths[0]}/token: pytest-nixos canary", f"{paths[3]}: private key")
    assert scan.private_keys == (f"{paths[3]}: private key",)
    assert canary not in repr(scan)


def test_a_closure_scan_leaves_nixpkgs_out(tmp_path: Path) -> None:
    (tmp_path / "pkgs/top-level").mkdir(parents=True)
    (tmp_path / "nixos/modules").mkdir(parents=True)
    (tmp_path / "nixos/modules/key").write_text("AGE-SECRET-KEY-1" + "Q" * 58)
    assert scan_closure([tmp_path]).secrets == ()


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
