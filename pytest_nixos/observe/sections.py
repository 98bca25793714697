"""The shape in which probes print several things: ``=title`` lines, and what belongs to each below."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["split_sections"]


def split_sections(text: str) -> Mapping[str, list[str]]:
    """Return title to lines; what comes before the first title is dropped, a repeated title goes on."""
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line.startswith("="):
            current = sections.setdefault(line[1:], [])
        else:
            current.append(line)
    return sections
