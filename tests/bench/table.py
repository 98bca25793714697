"""Sections as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.bench.figures import Goal, Section

INTRODUCTION = """# Benchmarks

Written by `./dev bench`; `./dev bench NAME...` measures a part again. Each figure is the median of several runs, with the smallest and the
largest in parentheses; what is compared was measured in turn in one session. A figure that falls short of its goal stays here with the
reason. A machine's pace is what a fixed piece of work took by the clock beside the measurement. The host is `llm-host` of the example flake on the offline stand-in unless a section says otherwise.

![Bars: the figures below](benchmarks.svg)
"""


def markdown(sections: Sequence[Section]) -> str:
    """Return the whole page."""
    parts = [INTRODUCTION, *(_section(section) for section in sections)]
    return "\n".join(parts).rstrip() + "\n"


def _section(section: Section) -> str:
    return "\n".join(
        [
            f"## {section.title}",
            "",
            section.lead,
            "",
            *_table(section.header, section.rows),
            "",
            *_goals(section.goals),
            _measured(section),
            "",
        ]
    )


def _measured(section: Section) -> str:
    if not section.machine:
        return ""
    pace = f"; its pace {section.pace_ms:.0f} ms" if section.pace_ms else ""
    return f"Measured {section.machine}{pace}."


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield _row(header)
    yield _row(["---"] * len(header))
    for row in rows:
        yield _row(row)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _goals(goals: Sequence[Goal]) -> Iterator[str]:
    if not goals:
        return
    yield from _table(
        ("goal", "measured", ""),
        [
            (goal.wanted, goal.got, "reached" if goal.reached else f"missed: {goal.reason}")
            for goal in goals
        ],
    )
    yield ""
