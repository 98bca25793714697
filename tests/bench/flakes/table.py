"""The corpus' results as a page."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["PAGE", "page"]

Json = Any
PAGE = Path(__file__).parents[3] / "docs/reference/corpus.md"
REVIEWS = Path(__file__).parent / "reviews.toml"
_HEAD = """\
# Public configurations, evaluated and judged

Written by `python -m tests.bench.flakes --table` from `tests/bench/flakes/results.json`: public repositories at a commit each, on a nixpkgs tree of
24.05, judged by what the default profile decides without a machine. Nothing of them is kept here but names and figures. *Plain* is
`nix eval` of the host's `toplevel.drvPath`, *plugin* the evaluation of facts, options and the instrumented machine, both in seconds of the
processor, one after the other on the same machine.

Inputs come from mirrors at the locked commit, or at the last one before it that the mirror has; one that cannot be fetched is a flake without outputs,
which a host may name and not use. A nixpkgs tree that lacks its generated lists of GNOME's extensions and of Haskell's
packages gets lists of names, which suffices since nothing is built. What an input that cannot be fetched, an option that the tree does not have, or an import
from a derivation keeps from being evaluated is listed with that reason.
"""


def page(rows: Mapping[str, Json], reviews: Mapping[str, Mapping[str, str]]) -> str:
    """Write the page.

    :param reviews: what somebody who read the host's source says of a finding, by host and control.
    """
    done = {name: row for name, row in rows.items() if "plain" in row}
    lines = [
        _HEAD,
        *_summary(rows, done),
        "",
        "| host | commit | plain | plugin | ratio of time, memory | judged | findings |",
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for name, row in done.items():
        plain, ours = row["plain"], row["ours"]
        lines.append(
            f"| {name} | {row['commit'][:8]} | {plain['seconds']} s, {plain['mib']} MiB"
            f" | {ours['seconds']} s, {ours['mib']} MiB | {_ratio(row, 'seconds'):.2f},"
            f" {_ratio(row, 'mib'):.2f} | {row['judged']} | {', '.join(row['findings']) or 'none'} |"
        )
    lines += [
        "",
        "## Findings, read by hand",
        "",
        "| host | control | what it says | true |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {control} | {_escaped(said)} | {reviews.get(name, {}).get(control, 'not read yet')} |"
        for name, row in done.items()
        for control, said in row["findings"].items()
    ]
    lines += ["", "## Not evaluated", "", "| host | commit | why |", "|---|---|---|"]
    lines += [
        f"| {name} | {row['commit'][:8]} | {_escaped(row['why'])} |"
        for name, row in rows.items()
        if name not in done
    ]
    return "\n".join(lines) + "\n"


def _summary(rows: Mapping[str, Json], done: Mapping[str, Json]) -> list[str]:
    repositories = {row["repository"] for row in rows.values()}
    counts = Counter(control for row in done.values() for control in row["findings"])
    of = len({row["repository"] for row in done.values()})
    text = [
        f"{len(repositories)} repositories, {len(rows)} hosts; {len(done)} evaluated, of {of} repositories."
    ]
    if done:
        time, memory = ([_ratio(row, key) for row in done.values()] for key in ("seconds", "mib"))
        text.append(
            f"Plugin to plain, median (largest): time {statistics.median(time):.2f}"
            f" ({max(time):.2f}), memory {statistics.median(memory):.2f} ({max(memory):.2f})."
        )
    text += [
        "",
        "Findings by control: "
        + (", ".join(f"{c} {n}" for c, n in counts.most_common()) or "none")
        + ".",
    ]
    return text


def _ratio(row: Json, key: str) -> float:
    return float(row["ours"][key]) / max(float(row["plain"][key]), 0.1)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
