"""The nixpkgs tree of the corpus: put into the store once, and made whole where it lacks a list."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

__all__ = ["in_store", "whole_tree"]

#: Generated, of 17 MB, and therefore absent from some copies of nixpkgs.
_HASKELL = Path("pkgs/development/haskell-modules/hackage-packages.nix")
#: Extensions of GNOME's shell, generated too.
_GNOME = Path("pkgs/desktops/gnome/extensions/extensions.json")
_OVERRIDDEN = re.compile(r'"([^"\s]+@[^"\s]+)"')
_EXTENSIONS = [
    "appindicator",
    "blur-my-shell",
    "caffeine",
    "clipboard-history",
    "clipboard-indicator",
    "dash-to-dock",
    "dash-to-panel",
    "gsconnect",
    "just-perspective",
    "tiling-assistant",
    "user-themes",
    "vitals",
]
_PROGRAMS = [
    "ShellCheck",
    "cachix",
    "hledger",
    "nixfmt",
    "nix-tree",
    "pandoc",
    "pandoc-cli",
    "xmobar",
    "xmonad",
]
_SELECTED = re.compile(r"\b(?:super|self|prev|final)\.([A-Za-z][\w'-]*)")
_NAMED = re.compile(r"\bhaskellPackages\.([A-Za-z][\w'-]*)")
_INHERITED = re.compile(r"inherit \(haskellPackages\)([^;]*);")
_FORMALS = re.compile(r"^\{([^{}]*\bmkDerivation\b[^{}]*)\}\s*:", re.MULTILINE)
_STAND_IN = """\
# Names only, so that hosts that have a program in Haskell evaluate; nothing of it is built.
{{ pkgs, lib, callPackage }}: self:
  lib.genAttrs (lib.splitString " " "{names}") (name:
    lib.makeOverridable (_: pkgs.stdenvNoCC.mkDerivation {{
      pname = name; version = if name == "pandoc" then "3.1.11.1" else "0"; dontUnpack = true; outputs = [ "out" "bin" "doc" "data" ];
      passthru = {{ compiler = pkgs.bash; src = pkgs.emptyDirectory; }};
      meta.mainProgram = lib.toLower name; meta.license = lib.licenses.mit;
    }}) {{ mkDerivation = _: null; }})
"""


def whole_tree(tree: Path, work: Path) -> Path:
    """Return the tree, or a copy of it that has the lists of Haskell's packages and of GNOME's
    extensions which it lacks: the names that the tree itself speaks of, with derivations that build
    to nothing.
    """
    if not _lacks(tree, _HASKELL) and not _lacks(tree, _GNOME):
        return tree
    copy = work / "nixpkgs"
    if not copy.exists():
        shutil.copytree(tree, copy, symlinks=True)
    if _lacks(copy, _HASKELL):
        (copy / _HASKELL).write_text(_STAND_IN.format(names=" ".join(_names(copy))))
    if _lacks(copy, _GNOME):
        (copy / _GNOME).write_text(json.dumps(_extensions(copy)))
    return copy


def _lacks(tree: Path, file: Path) -> bool:
    return (tree / file).parent.is_dir() and not (tree / file).exists()


def _extensions(tree: Path) -> list[object]:
    overridden = (tree / _GNOME).with_name("extensionOverrides.nix").read_text()
    uuids = {*_OVERRIDDEN.findall(overridden), *(f"{name}@example.org" for name in _EXTENSIONS)}
    version = {"version": "1", "sha256": "", "metadata": ""}
    return [
        {
            **dict.fromkeys(("name", "pname"), uuid.partition("@")[0]),
            "uuid": uuid,
            "description": "",
            "link": "",
            "shell_version_map": {"46": version},
        }
        for uuid in sorted(uuids)
    ]


def _names(tree: Path) -> list[str]:
    names = set(_PROGRAMS)
    for file in (tree / "pkgs").rglob("*.nix"):
        text = file.read_text(errors="replace")
        names.update(_NAMED.findall(text))
        if tree / _HASKELL.parent in file.parents:
            names.update(_SELECTED.findall(text))
        lists = _INHERITED.findall(text)
        if "mkDerivation" in text:
            lists += _FORMALS.findall(text)
        for words in lists:
            names.update(re.findall(r"[A-Za-z][\w'-]*", words))
    return sorted(names)


def in_store(tree: Path, program: str) -> str:
    """Put a tree into the store under the name that a flake's source has there; Nix copies it
    once, and not at each command.
    """
    nix = (program, "--extra-experimental-features", "nix-command")
    path = _said(*nix, "store", "add-path", "--name", "source", str(tree))
    narhash = _said(*nix, "hash", "path", "--type", "sha256", "--sri", path)
    return f"path:{path}?narHash={quote(narhash, safe='=-')}"


def _said(*argv: str) -> str:
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip().splitlines()[-1]
