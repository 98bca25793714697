"""What a machine has instead of what its host declares, as lines of the terminal's summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_nixos.local.text import printable

__all__ = ["change_lines"]


def change_lines(host: str, facts: Mapping[str, Any], *, whole: bool) -> list[str]:
    """Say in what the machine differs from what the host declares: one line, or with `whole` one
    for each reason.
    """
    found = facts.get("changes") or ()
    if not found:
        return []
    options = sum(len(change["options"]) for change in found)
    line = f"{printable(host)}: {options} options differ from the host as declared"
    if not whole:
        return [f"{line} ({'; '.join(change['what'] for change in found)}; -v says why)"]
    return [
        f"{line}:",
        *(f"  {c['what']} ({len(c['options'])}): {c['why']}" for c in found),
    ]
