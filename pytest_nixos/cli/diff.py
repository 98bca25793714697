"""``pytest-nixos diff``: what changed between two runs, or two hosts."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_nixos.cli.command import CommandEnd, Commands
from pytest_nixos.errors import SettingsError
from pytest_nixos.report.comparing.compare import compare
from pytest_nixos.report.comparing.comparison_text import (
    comparison_html,
    comparison_json,
    comparison_lines,
)
from pytest_nixos.report.comparing.host_differences import host_differences
from pytest_nixos.report.comparing.saved import SavedReport, read_report

__all__ = ["add"]

_WORSE = 1


def add(commands: Commands) -> None:
    """Declare the command."""
    diff = commands.add_parser("diff", help="tell what changed between two JSON reports, or hosts")
    diff.add_argument("before", metavar="A.json[#HOST]")
    diff.add_argument("after", metavar="B.json[#HOST]")
    diff.add_argument("--format", choices=("text", "html", "json"), default="text")
    diff.add_argument("--known", action="store_true", help="list what failed as before too")
    diff.set_defaults(command=_diff)


def _diff(options: argparse.Namespace) -> Iterator[str]:
    before, old_host = _named(options.before)
    after, new_host = _named(options.after)
    if (old_host is None) != (new_host is None):
        raise SettingsError(
            "diff: one report is given with a host and the other without",
            remedy="name a host of both (A.json#web B.json#db), or of neither",
        )
    pairs = (
        {old_host: new_host}
        if old_host is not None and new_host is not None
        else {name: name for name in before.hosts if name in after.hosts}
    )
    if not pairs:
        raise SettingsError(
            f"diff: the reports have no host in common: {', '.join(before.hosts)}"
            f" and {', '.join(after.hosts)}",
            remedy="name the two hosts: A.json#web B.json#db",
        )
    found = compare(
        [f for f in before.findings if f.host in pairs],
        [f for f in after.findings if f.host in pairs.values()],
        hosts=pairs,
    )
    facts = _facts(before, after, pairs)
    if options.format == "json":
        yield comparison_json(found, facts).rstrip("\n")
    elif options.format == "html":
        title = f"{before.started_at} and {after.started_at}"
        yield comparison_html(found, facts, title=f"NixOS findings: {title}").rstrip("\n")
    else:
        yield from comparison_lines(found, facts, known=options.known)
    if found.is_worse:
        raise CommandEnd(_WORSE)


def _named(text: str) -> tuple[SavedReport, str | None]:
    path, separator, host = text.rpartition("#")
    report = read_report(Path(path if separator else text), asked_by="diff")
    if separator and host not in report.hosts:
        raise SettingsError(
            f"diff {path}: has no host {host!r}",
            remedy=f"its hosts: {', '.join(report.hosts)}",
        )
    return report, host if separator else None


def _facts(
    before: SavedReport, after: SavedReport, pairs: Mapping[str, str]
) -> dict[str, list[str]]:
    facts: dict[str, list[str]] = {}
    for old, new in pairs.items():
        name = old if old == new else f"{old} and {new}"
        facts |= host_differences(before.hosts[old], after.hosts[new], host=name)
    return facts
