"""``./dev bench [NAME...]``: measure, and write the table and the picture of docs/reference.

Parts: cold, warm, peers, driver (the NixOS test driver itself), catalogue, clones, cluster, containers, evaluation (on a real nixpkgs tree), growth, firewall. What is
not measured again keeps its figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.bench import (
    catalogue,
    clones,
    cluster,
    cold,
    containers,
    driver,
    evaluation,
    firewall,
    growth,
    peers,
    warm,
)
from tests.bench.compare import compared
from tests.bench.figures import Section, merged
from tests.bench.pace import pace_ms
from tests.bench.picture import svg
from tests.bench.rig import ROOT, Plan, RunFailed, machine, say
from tests.bench.table import markdown

FIGURES = ROOT / "docs/reference/benchmarks.json"
PAGE = ROOT / "docs/reference/benchmarks.md"
PICTURE = ROOT / "docs/reference/benchmarks.svg"
ORDER = (
    "warm",
    "cold",
    "clones",
    "cluster",
    "containers",
    "peers",
    "facts",
    "driver",
    "catalogue",
    "growth",
    "evaluation",
    "firewall",
)
PARTS: Mapping[str, Callable[[Path, Plan], Section | tuple[Section, ...]]] = {
    "growth": growth.measure,
    "peers": peers.measure,
    "cold": cold.measure,
    "warm": warm.measure,
    "clones": clones.measure,
    "cluster": cluster.measure,
    "containers": containers.measure,
    "catalogue": catalogue.measure,
    "driver": driver.measure,
    "evaluation": evaluation.measure,
    "firewall": firewall.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="of each slow thing (3)")
    parser.add_argument(
        "--quick", action="store_true", help="try that everything works; writes to .dev/bench"
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="print what is more than 10 %% worse than the kept figures, and keep those; writes to .dev/bench",
    )
    options = parser.parse_args()
    for name in options.parts:
        if name not in PARTS:
            parser.error(f"no part {name!r}; parts: {', '.join(PARTS)}")
    plan = Plan(runs=1 if options.quick else options.runs, quick=options.quick)
    failed = False
    for name in options.parts or PARTS:
        say(name)
        before_ms = pace_ms()
        try:
            with tempfile.TemporaryDirectory(prefix="bench-") as home:
                made = PARTS[name](Path(home), plan)
        except RunFailed as err:
            failed = True
            say(f"{name} failed:\n{err}")
            continue
        # The machine may have become busy meanwhile.
        pace = (before_ms + pace_ms()) / 2
        whole = made if isinstance(made, tuple) else (made,)
        sections = tuple(dataclasses.replace(section, pace_ms=pace) for section in whole)
        write(sections, keep=not (options.quick or options.compare))
        if options.compare:
            kept = [Section.from_json(data) for data in json.loads(FIGURES.read_text())]
            sys.stdout.write("".join(f"{line}\n" for line in compared(kept, sections)))
    return 1 if failed else 0


def write(sections: tuple[Section, ...], *, keep: bool) -> None:
    """Replace sections in the figures, and write page and picture anew.

    :param keep: in the reference; else in ``.dev/bench``.
    """
    figures, page, picture = (
        (path if keep else _scratch() / path.name) for path in (FIGURES, PAGE, PICTURE)
    )
    old = json.loads(figures.read_text()) if figures.exists() else []
    here = machine()
    now = merged(
        [Section.from_json(data) for data in old],
        [dataclasses.replace(section, machine=here) for section in sections],
        ORDER,
    )
    figures.write_text(json.dumps([section.to_json() for section in now], indent=1) + "\n")
    page.write_text(markdown(now))
    picture.write_text(svg(now))
    sys.stdout.write(
        markdown([section for section in now if section.name in {s.name for s in sections}])
    )


def _scratch() -> Path:
    directory = ROOT / ".dev/bench"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


if __name__ == "__main__":
    sys.exit(main())
