"""The report writers that come with the plugin, by format."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_nixos.report.facts import ReportWriter
from pytest_nixos.report.html_report import write_html
from pytest_nixos.report.json_report import write_json
from pytest_nixos.report.sarif_report import write_sarif

__all__ = ["BUNDLED_WRITERS"]

BUNDLED_WRITERS: Mapping[str, ReportWriter] = {
    "html": write_html,
    "json": write_json,
    "sarif": write_sarif,
}
