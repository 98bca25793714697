"""Sections as bars in an SVG, readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from tests.bench.figures import Section, quantity

_WIDTH = 760
_LABEL = 300
_LONGEST = 360
_BAR = 16
_STEP = 22
_TITLE = 30
_OURS, _OTHER, _TEXT = "#5277c3", "#9aa4b2", "#6b7280"


def svg(sections: Sequence[Section]) -> str:
    """Draw each section that has bars, on a scale of its own."""
    parts: list[str] = []
    y = 8
    for section in sections:
        if section.bars:
            y = _group(section, y, parts)
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y + 4}" '
        f'viewBox="0 0 {_WIDTH} {y + 4}" role="img" font-family="sans-serif" font-size="13">'
    )
    return "\n".join(
        [
            opening,
            "<title>Benchmarks of pytest-nixos; shorter is better</title>",
            *parts,
            "</svg>",
            "",
        ]
    )


def _group(section: Section, y: int, parts: list[str]) -> int:
    title = escape(f"{section.bars_title}, {section.bars_unit}")
    parts.append(f'<text x="8" y="{y + 16}" fill="{_TEXT}" font-weight="bold">{title}</text>')
    y += _TITLE
    longest = max(bar.value for bar in section.bars) or 1.0
    for bar in section.bars:
        width = max(1.0, bar.value / longest * _LONGEST)
        middle = y + _BAR - 4
        parts += [
            f'<text x="{_LABEL - 8}" y="{middle}" fill="{_TEXT}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect x="{_LABEL}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2" fill="{_OURS if bar.ours else _OTHER}"/>',
            f'<text x="{_LABEL + width + 6:.1f}" y="{middle}" fill="{_TEXT}">{quantity(bar.value)}</text>',
        ]
        y += _STEP
    return y + 10
