"""The nixpkgs that tests evaluate hosts with: a tree that ``PYTEST_NIXOS_NIXPKGS`` names, and what
it may lack, or the one of ``PYTEST_NIXOS_TEST_OVERRIDES``.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

__all__ = ["NEEDS_NIXPKGS", "NIXPKGS", "OVERRIDES", "PROGRAM", "overlays"]

NIXPKGS = os.environ.get("PYTEST_NIXOS_NIXPKGS", "")
OVERRIDES: dict[str, str] = json.loads(os.environ.get("PYTEST_NIXOS_TEST_OVERRIDES", "{}"))
PROGRAM = os.environ.get("PYTEST_NIXOS_NIX_PROGRAMS", "nix").split(":")[0]
#: For ``pytestmark`` of tests that evaluate with either.
NEEDS_NIXPKGS = [
    pytest.mark.skipif(not shutil.which(PROGRAM), reason=f"no such program: {PROGRAM}"),
    pytest.mark.skipif(
        not (NIXPKGS or OVERRIDES),
        reason="neither PYTEST_NIXOS_NIXPKGS nor PYTEST_NIXOS_TEST_OVERRIDES names a nixpkgs",
    ),
]

_LIST = "pkgs/development/haskell-modules/hackage-packages.nix"
_WITHOUT_LIST = "[ (_: prev: { shellcheck-minimal = prev.bash // { compiler = prev.bash; }; }) ]"


def overlays(tree: str) -> str:
    """Return overlays, as a Nix list, that let hosts of `tree` evaluate without its generated lists of
    Haskell's packages, in which shellcheck is: scripts that are checked as they are built
    (nixos-firewall-tool) could not be evaluated. Nothing is built.
    """
    return "[ ]" if Path(tree, _LIST).exists() else _WITHOUT_LIST
