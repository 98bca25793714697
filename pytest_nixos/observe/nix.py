"""The settings of Nix on a machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_nixos.observe.fact import Fact
from pytest_nixos.observe.text import read_json

__all__ = ["NIX_FACTS"]

Json = Any


def _settings(text: str) -> dict[str, Json] | None:
    try:
        document = read_json(text)
    except ValueError:
        return None
    return {name: entry.get("value") for name, entry in document.items() if isinstance(entry, dict)}


NIX_FACTS: Mapping[str, Fact] = {
    "settings": Fact(
        script=(
            "command -v nix >/dev/null || exit 3; export HOME=/root; "
            "nix --extra-experimental-features nix-command config show --json || "
            "nix --extra-experimental-features nix-command show-config --json"
        ),
        parse=_settings,
        about="every setting in force, as `nix config show` prints it",
        lacking="the machine has no Nix",
    ),
}
