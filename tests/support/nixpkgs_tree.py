"""What a nixpkgs tree that is named by ``PYTEST_NIXOS_NIXPKGS`` may lack."""

from __future__ import annotations

from pathlib import Path

__all__ = ["overlays"]

_LIST = "pkgs/development/haskell-modules/hackage-packages.nix"
_WITHOUT_LIST = "[ (_: prev: { shellcheck-minimal = prev.bash // { compiler = prev.bash; }; }) ]"


def overlays(tree: str) -> str:
    """Return overlays, as a Nix list, that let hosts of `tree` evaluate without its generated lists of
    Haskell's packages, in which shellcheck is: scripts that are checked as they are built
    (nixos-firewall-tool) could not be evaluated. Nothing is built.
    """
    return "[ ]" if Path(tree, _LIST).exists() else _WITHOUT_LIST
