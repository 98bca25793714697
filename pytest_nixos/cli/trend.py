"""``pytest-nixos trend``: a folder of JSON reports as one page."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from pytest_nixos.cli.command import Commands
from pytest_nixos.errors import SettingsError
from pytest_nixos.report.comparing.saved import read_report
from pytest_nixos.report.comparing.trend import trend_html, trend_points

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the command."""
    trend = commands.add_parser("trend", help="make a page of a folder of JSON reports")
    trend.add_argument("folder", metavar="DIR", type=Path)
    trend.set_defaults(command=_trend)


def _trend(options: argparse.Namespace) -> Iterator[str]:
    folder: Path = options.folder
    paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not paths:
        raise SettingsError(
            f"trend {folder}: holds no JSON report",
            remedy="name a folder in which each run wrote one: --nixos-report json:DIR/$(date +%F).json",
        )
    reports = [read_report(path, asked_by="trend") for path in paths]
    yield trend_html(trend_points(reports)).rstrip("\n")
