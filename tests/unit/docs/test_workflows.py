"""Workflows that the pages give away are audited: people copy them as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
ZIZMOR = Path(sys.prefix) / "bin" / "zizmor"

_BLOCK = re.compile(r"^( *)```ya?ml\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


def documented() -> list[tuple[str, str]]:
    """Return each workflow of a page, with a name for the page and its place there."""
    return [
        (f"{page.relative_to(ROOT)}-{number}", textwrap.dedent(block))
        for page in PAGES
        for number, (_, block) in enumerate(_BLOCK.findall(page.read_text(encoding="utf-8")))
        if re.search(r"^jobs:", textwrap.dedent(block), re.MULTILINE)
    ]


def audit(workflow: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Let zizmor judge a workflow without a network; it fails of any finding and of what is no
    workflow.
    """
    place = tmp_path / ".github" / "workflows"
    place.mkdir(parents=True)
    (place / "ci.yml").write_text(workflow, encoding="utf-8")
    return subprocess.run(
        [ZIZMOR, "--offline", "--no-progress", "--strict-collection", place / "ci.yml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_pages_show_a_workflow() -> None:
    assert "docs/how-to/ci.md-0" in dict(documented())


@pytest.mark.parametrize("workflow", [pytest.param(text, id=name) for name, text in documented()])
def test_a_documented_workflow_has_no_finding(workflow: str, tmp_path: Path) -> None:
    result = audit(workflow, tmp_path)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("before", "after", "finding"),
    [
        ('".#$HOST"', '".#${{ matrix.host }}"', "template-injection"),
        ("with: { persist-credentials: false }", "", "artipacked"),
        ("permissions: { contents: read }", "permissions: write-all", "excessive-permissions"),
        ("@11bd71901bbe5b1630ceea73d27597364c9af683", "@v4", "unpinned-uses"),
        ("jobs:", "steps:", "no audit was performed"),
    ],
)
def test_what_a_workflow_must_not_have_is_found(
    before: str, after: str, finding: str, tmp_path: Path
) -> None:
    workflow = dict(documented())["docs/how-to/ci.md-0"]
    assert before in workflow
    result = audit(workflow.replace(before, after), tmp_path)
    assert result.returncode != 0
    assert finding in result.stdout
