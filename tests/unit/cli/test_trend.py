"""``pytest-nixos trend``."""

from pathlib import Path

import pytest

from pytest_nixos.cli.main import main
from tests.unit.cli.test_diff import report
from tests.unit.report.comparing.test_compare import finding


def test_folder_becomes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(tmp_path / "a.json", [finding("A")])
    report(tmp_path / "b.json", [])
    assert main(["trend", str(tmp_path)]) == 0
    page = capsys.readouterr().out
    assert page.count("<tr>") == 3 and "a.json" in page


@pytest.mark.parametrize("name", ["nothing", "."])
def test_folder_without_reports_is_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["trend", str(tmp_path / name)]) == 4
    assert "holds no JSON report" in capsys.readouterr().err
