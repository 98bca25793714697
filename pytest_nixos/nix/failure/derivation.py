"""A derivation that failed to build: which one was the first, why, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_nixos.nix.command.log import NixMessage

__all__ = ["first_failed", "said_last", "what_to_do", "why_failed"]

_DERIVATION = re.compile(r"/nix/store/[0-9a-z]{32}-[^'\"\s^!]+?\.drv")
#: Words of Nix's own fetcher, of nixpkgs' fetchurl and of git.
_NOT_DOWNLOADED = re.compile(
    r"^\s*(?:error: (?:unable to download '|cannot download \S+ from any mirror)"
    r"|fatal: unable to access 'http)"
)
# What programs write before the reason that they end for.
_ERROR = re.compile(r"(?:^|[\s\[])(?:\w*error|fatal|emerg)\b[\]:]", re.IGNORECASE)
_MOST_SAID = 200


def first_failed(errors: Sequence[NixMessage]) -> str:
    """Return the store path of the derivation that others failed for, ``""`` if none is named."""
    own = [error for error in errors if "dependenc" not in error.text]
    for words in ("builder for", "Cannot build", "hash mismatch", "while building", "build of"):
        for error in (*own, *errors):
            found = _DERIVATION.search(error.text) if words in error.text else None
            if found:
                return found.group()
    return ""


def why_failed(errors: Sequence[NixMessage], derivation: str) -> str:
    """Return what Nix says became of a derivation that it names."""
    text = next(error.text for error in errors if derivation in error.text)
    lines = [line.strip() for line in text.splitlines()]
    said = re.search(
        r"Reason: (.*)|(failed with [^;\n]*|failed due to [^;\n]*)|(hash mismatch[^\n]*)", text
    )
    return (next(filter(None, said.groups())) if said else lines[0]).rstrip(";.")


def said_last(log_tail: Sequence[str]) -> str:
    """Return the last line of a build's log that tells of an error, ``""`` for none."""
    telling = next((line for line in reversed(log_tail) if _ERROR.search(line)), "")
    return telling.strip()[:_MOST_SAID]


def what_to_do(log_tail: Sequence[str], read_log: str) -> str:
    """Return the remedy for a build with such last lines.

    :param read_log: the command that shows the whole log.
    """
    if any(map(_NOT_DOWNLOADED.search, log_tail)):
        return (
            "have it downloaded: this machine has to reach that address, or a binary cache that has the file"
            f" (--nixos-nix-option extra-substituters URL); the whole log: {read_log}"
        )
    return f"read the whole log: {read_log}"
