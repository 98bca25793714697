"""What is typed where stage 1 asks for the passphrase of a LUKS device."""

from __future__ import annotations

import re

from pytest_nixos.machine.disks.script import TEST_KEY

__all__ = ["answer_to"]

# nixpkgs luksroot.nix: "Passphrase for /dev/...: "; systemd: "Please enter passphrase for disk ... (root):",
# where a recovery key is enrolled too "passphrase or recovery key", with "(press TAB for no echo)" behind it.
_ASKS = re.compile(
    r"[Pp]assphrase (?:or recovery key )?for .*:\s*(?:\(press TAB for no echo\)\s*)?$"
)


def answer_to(prompt: str) -> str:
    """Return what is typed at a prompt, ``""`` for nothing."""
    return TEST_KEY if _ASKS.search(prompt) else ""
