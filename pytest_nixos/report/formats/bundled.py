"""The report writers that come with the plugin, by format."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_nixos.report.facts import ReportWriter
from pytest_nixos.report.formats.ckl_report import write_ckl
from pytest_nixos.report.formats.codequality_report import write_codequality
from pytest_nixos.report.formats.csv_report import write_csv
from pytest_nixos.report.formats.github_report import write_github
from pytest_nixos.report.formats.hdf_report import write_hdf
from pytest_nixos.report.formats.html_report import write_html
from pytest_nixos.report.formats.json_report import write_json
from pytest_nixos.report.formats.markdown_report import write_markdown
from pytest_nixos.report.formats.oscal_report import write_oscal
from pytest_nixos.report.formats.sarif_report import write_sarif
from pytest_nixos.report.formats.xccdf_report import write_xccdf

__all__ = ["BUNDLED_WRITERS"]

BUNDLED_WRITERS: Mapping[str, ReportWriter] = {
    "ckl": write_ckl,
    "codequality": write_codequality,
    "csv": write_csv,
    "github": write_github,
    "hdf": write_hdf,
    "html": write_html,
    "json": write_json,
    "markdown": write_markdown,
    "oscal": write_oscal,
    "sarif": write_sarif,
    "xccdf": write_xccdf,
}
