"""``python -m tests.bench.flakes --sources DIR --nixpkgs TREE``: the corpus, evaluated and judged.

Each host of ``corpus.toml`` is taken from a git mirror below one of the directories (``OWNER+NAME/repo``,
``OWNER/NAME`` or ``OWNER/NAME.git``), or cloned where there is a network; its locked inputs come from
there too, and every nixpkgs is the tree that is given. Nothing is built or booted. Rows are written to
``results.json`` as they are made, names, commits and figures only. Each finding is read by hand once
and what came of that kept in ``reviews.toml``; ``--table`` writes the page from both.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path

from tests.bench.flakes.corpus import CORPUS, load_corpus
from tests.bench.flakes.measure import Row, measure
from tests.bench.flakes.nixpkgs import in_store, whole_tree
from tests.bench.flakes.table import PAGE, REVIEWS, page

RESULTS = CORPUS.with_name("results.json")


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.flakes", description=__doc__)
    parser.add_argument("--sources", type=Path, action="append", default=[], metavar="DIR")
    parser.add_argument("--nixpkgs", type=Path, metavar="TREE", help="of NixOS 24.05")
    parser.add_argument("--nix", default="nix", metavar="PROGRAM")
    parser.add_argument("--work", type=Path, default=Path("/tmp/pytest-nixos-corpus"))
    parser.add_argument("--profile", default="baseline")
    parser.add_argument("--only", action="append", default=[], metavar="OWNER/NAME")
    parser.add_argument("--new", action="store_true", help="hosts without a row only")
    parser.add_argument("--table", action="store_true", help="write the page from the rows")
    options = parser.parse_args()
    if options.table:
        PAGE.write_text(page(json.loads(RESULTS.read_text()), tomllib.loads(REVIEWS.read_text())))
        return 0
    if options.nixpkgs is None:
        parser.error("--nixpkgs: which tree?")
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    nixpkgs = in_store(whole_tree(options.nixpkgs, options.work), options.nix)
    for repository in load_corpus():
        for host in repository.hosts:
            key = f"{repository.name}#{host}"
            wanted = not options.only or repository.name in options.only
            if not wanted or (options.new and key in rows):
                continue
            row = measure(
                repository,
                host,
                sources=tuple(options.sources),
                nixpkgs=nixpkgs,
                program=options.nix,
                work=options.work,
                profile=options.profile,
            )
            rows[key] = row.as_json()
            sys.stdout.write(f"{told(row)}\n")
            sys.stdout.flush()
            RESULTS.write_text(json.dumps(dict(sorted(rows.items())), indent=1) + "\n")
    return 0


def told(row: Row) -> str:
    """Return a row as a line for whoever waits."""
    name = f"{row.repository}#{row.host}"
    if row.plain is None or row.ours is None:
        return f"{name}: not evaluated: {row.why}"
    return (
        f"{name}: {row.plain.seconds} s {row.plain.mib} MiB plain, {row.ours.seconds} s"
        f" {row.ours.mib} MiB, {row.judged} judged, findings: {' '.join(row.findings) or 'none'}"
    )


if __name__ == "__main__":
    sys.exit(main())
