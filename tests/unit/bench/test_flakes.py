"""The corpus: its list, where sources are looked for, and its page."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.bench.flakes.corpus import (
    NotFetched,
    Repository,
    checkout,
    find_mirror,
    load_corpus,
    provide_inputs,
)
from tests.bench.flakes.table import page


def test_the_list_names_enough_repositories_by_commit() -> None:
    corpus = load_corpus()
    assert len({repository.name.lower() for repository in corpus}) == len(corpus) >= 25
    assert all(len(r.commit) == 40 and r.hosts and "/" in r.name for r in corpus)


def test_a_mirror_is_found_by_name_without_regard_to_case_and_owner(tmp_path: Path) -> None:
    for place in ("Ada+Nix-Config/repo", "bob/other.git", "new+moved.nix/repo"):
        (tmp_path / place).mkdir(parents=True)
    sources = (tmp_path / "none", tmp_path)
    assert find_mirror("ada/nix-config", sources) == tmp_path / "Ada+Nix-Config/repo"
    assert find_mirror("Bob/other", sources) == tmp_path / "bob/other.git"
    assert find_mirror("old/moved.nix", sources) == tmp_path / "new+moved.nix/repo"
    assert find_mirror("ada/unknown", sources) is None


def git(directory: Path, *argv: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    done = subprocess.run(
        ["git", *identity, "-C", directory, *argv], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_a_commit_is_checked_out_of_a_mirror_or_told_as_not_fetched(tmp_path: Path) -> None:
    mirror = tmp_path / "mirrors/ada+config/repo"
    mirror.mkdir(parents=True)
    git(mirror, "init", "--quiet")
    commits = []
    for text in ("one", "two"):
        (mirror / "flake.nix").write_text(text)
        git(mirror, "add", "-A")
        git(mirror, "commit", "--quiet", "-m", text)
        commits.append(git(mirror, "rev-parse", "HEAD"))
    sources = (tmp_path / "mirrors",)
    work = tmp_path / "work"
    for commit, text in zip(commits, ("one", "two"), strict=True):
        copy = checkout(Repository(name="ada/config", commit=commit, hosts=()), sources, work)
        assert (copy / "flake.nix").read_text() == text
    with pytest.raises(NotFetched):
        checkout(Repository(name="ada/config", commit="0" * 40, hosts=()), sources, work)


def test_inputs_that_are_not_at_hand_are_named_and_nixpkgs_is_left_to_the_caller(
    tmp_path: Path,
) -> None:
    nodes = {
        "root": {"inputs": {"nixpkgs": "n", "sops": "s", "follower": ["sops", "nixpkgs"]}},
        "n": {"locked": {"type": "github", "owner": "NixOS", "repo": "nixpkgs"}},
        "s": {
            "inputs": {"nixpkgs": "n2", "util": "u"},
            "locked": {"type": "github", "owner": "a", "repo": "sops", "rev": "0"},
        },
        "n2": {"locked": {"type": "tarball", "url": "https://github.com/NixOS/nixpkgs/archive/1"}},
        "u": {"locked": {"type": "git", "url": "https://example.org/u"}},
    }
    (tmp_path / "flake.lock").write_text(json.dumps({"root": "root", "nodes": nodes}))
    nixpkgs, missing = provide_inputs(tmp_path, (tmp_path / "none",), tmp_path / "work")
    assert nixpkgs == ("nixpkgs", "sops/nixpkgs")
    assert missing == ("sops", "sops/util")


def test_the_page_tells_ratios_and_why_a_host_was_not_evaluated() -> None:
    about = {"commit": "c" * 40, "host": "web"}
    rows = {
        "a/b#web": {
            **about,
            "repository": "a/b",
            "plain": {"seconds": 10.0, "mib": 1000},
            "ours": {"seconds": 15.0, "mib": 1500},
            "judged": 15,
            "findings": {"AUTH-004": "x"},
        },
        "c/d#db": {**about, "repository": "c/d", "why": "no <nixpkgs> | here"},
    }
    text = page(rows)
    assert "2 repositories, 2 hosts; 1 evaluated, of 1 repositories." in text
    assert "time 1.50 (1.50), memory 1.50 (1.50)" in text
    assert (
        "| a/b#web | cccccccc | 10.0 s, 1000 MiB | 15.0 s, 1500 MiB | 1.50, 1.50 | 15 | AUTH-004 |"
        in text
    )
    assert "no &lt;nixpkgs> \\| here" in text
