"""The corpus: its list, where sources are looked for, and its page."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.bench.flakes.corpus import (
    Inputs,
    NotFetched,
    Repository,
    checkout,
    find_mirror,
    load_corpus,
    provide_inputs,
)
from tests.bench.flakes.nixpkgs import whole_tree
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
        "root": {
            "inputs": {"nixpkgs": "n", "sops": "s", "own": "o", "follower": ["sops", "nixpkgs"]}
        },
        "o": {"inputs": {"nixpkgs": "n3"}, "locked": {"type": "path", "path": "./own"}},
        "n3": {"locked": {"type": "github", "owner": "nixos", "repo": "nixpkgs"}},
        "n": {"locked": {"type": "github", "owner": "NixOS", "repo": "nixpkgs"}},
        "s": {
            "inputs": {"nixpkgs": "n2", "util": "u"},
            "locked": {"type": "github", "owner": "a", "repo": "sops", "rev": "0"},
        },
        "n2": {"locked": {"type": "tarball", "url": "https://github.com/NixOS/nixpkgs/archive/1"}},
        "u": {"locked": {"type": "git", "url": "https://example.org/u"}},
    }
    (tmp_path / "flake.lock").write_text(json.dumps({"root": "root", "nodes": nodes}))
    inputs = provide_inputs(tmp_path, (tmp_path / "none",), tmp_path / "work")
    # An input of one that is missing cannot be overridden: Nix would fetch that one.
    assert inputs.nixpkgs == ("nixpkgs", "own/nixpkgs")
    assert inputs.missing == ("sops", "sops/util")
    assert inputs.emptied == (("sops", f"path:{tmp_path}/work/empty"),)
    assert (tmp_path / "work/empty/flake.nix").read_text() == "{ outputs = _: { }; }\n"


@pytest.mark.parametrize(
    "locked",
    [
        {"type": "github", "owner": "ada", "repo": "lib"},
        {"type": "git", "url": "https://github.com/ada/lib.git"},
        {"type": "tarball", "url": "https://api.flakehub.com/f/pinned/ada/lib/1.0/x/source.tar.gz"},
    ],
)
def test_an_input_of_github_is_looked_for_by_whatever_way_it_is_locked(
    tmp_path: Path, locked: dict[str, str]
) -> None:
    mirror = tmp_path / "mirrors/ada+lib/repo"
    mirror.mkdir(parents=True)
    git(mirror, "init", "--quiet")
    (mirror / "default.nix").write_text("{ }")
    git(mirror, "add", "-A")
    git(mirror, "commit", "--quiet", "-m", "one")
    rev = git(mirror, "rev-parse", "HEAD")
    tree = tmp_path / "work/inputs" / rev / "source"
    nodes: dict[str, Any] = {
        "root": {"inputs": {"lib": "l"}},
        "l": {"locked": {**locked, "rev": rev}},
    }
    (tmp_path / "flake.lock").write_text(json.dumps({"root": "root", "nodes": nodes}))
    # Its hash is not locked, so it counts as missing; its tree is there to be held against one.
    provide_inputs(tmp_path, (tmp_path / "mirrors",), tmp_path / "work")
    assert (tree / "default.nix").read_text() == "{ }"
    # A commit that the mirror does not have yet is replaced by the last one before it.
    nodes["l"] = {"locked": {**locked, "rev": "0" * 40, "lastModified": 4_000_000_000}}
    # It has no input to override, which the locked one has.
    nodes["l"]["inputs"] = {"nixpkgs": "n"}
    nodes["n"] = {"locked": {"type": "github", "owner": "NixOS", "repo": "nixpkgs"}}
    (tmp_path / "flake.lock").write_text(json.dumps({"root": "root", "nodes": nodes}))
    inputs = provide_inputs(tmp_path, (tmp_path / "mirrors",), tmp_path / "work")
    assert inputs == Inputs(replaced=(("lib", f"path:{tree}"),))


def test_a_tree_without_the_list_of_haskells_packages_gets_names(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "pkgs/development/haskell-modules").mkdir(parents=True)
    (tree / "pkgs/a.nix").write_text("{ haskellPackages }: haskellPackages.pandoc-types")
    whole = whole_tree(tree, tmp_path / "work")
    listed = (whole / "pkgs/development/haskell-modules/hackage-packages.nix").read_text()
    assert {"pandoc-types", "ShellCheck"} <= set(re.findall(r"[\w-]+", listed))
    assert not (tree / "pkgs/development/haskell-modules/hackage-packages.nix").exists()
    assert whole_tree(whole, tmp_path / "work") == whole


def test_a_tree_without_the_list_of_gnomes_extensions_gets_those_that_it_speaks_of(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "tree/pkgs/desktops/gnome/extensions"
    folder.mkdir(parents=True)
    (folder / "extensionOverrides.nix").write_text('(patch "pop-shell@system76.com" (old: { }))')
    whole = whole_tree(tmp_path / "tree", tmp_path / "work")
    listed = json.loads(
        (whole / folder.relative_to(tmp_path / "tree") / "extensions.json").read_text()
    )
    named = {entry["pname"]: entry["uuid"] for entry in listed}
    assert named["pop-shell"] == "pop-shell@system76.com" and "appindicator" in named
    assert not (folder / "extensions.json").exists()


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
    text = page(rows, {"a/b#web": {"AUTH-004": "yes: it does"}})
    assert "2 repositories, 2 hosts; 1 evaluated, of 1 repositories." in text
    assert "time 1.50 (1.50), memory 1.50 (1.50)" in text
    assert (
        "| a/b#web | cccccccc | 10.0 s, 1000 MiB | 15.0 s, 1500 MiB | 1.50, 1.50 | 15 | AUTH-004 |"
        in text
    )
    assert "| a/b#web | AUTH-004 | x | yes: it does |" in text
    assert "| a/b#web | AUTH-004 | x | not read yet |" in page(rows, {})
    assert "no &lt;nixpkgs> \\| here" in text
