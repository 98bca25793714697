"""Workflows that the pages and `pytest-nixos ci` give away are audited: people copy them as they
stand. That their steps run: tests/machine/test_workflows_run.py.
"""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import tree_sitter_nix
import yaml
from tree_sitter import Language, Parser

from pytest_nixos import __version__
from pytest_nixos.cli.ci import gitlab_hosts, reusable_workflow, workflow

ROOT = Path(__file__).parents[3]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
ZIZMOR = Path(sys.prefix) / "bin" / "zizmor"
CHECK_JSONSCHEMA = Path(sys.prefix) / "bin" / "check-jsonschema"
ACTION = (ROOT / "action.yml").read_text(encoding="utf-8")

_BLOCK = re.compile(r"^( *)```ya?ml\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


def documented() -> list[tuple[str, str]]:
    """Return each workflow of a page, with a name for the page and its place there."""
    return [
        (f"{page.relative_to(ROOT)}-{number}", textwrap.dedent(block))
        for page in PAGES
        for number, (_, block) in enumerate(_BLOCK.findall(page.read_text(encoding="utf-8")))
        if re.search(r"^jobs:", textwrap.dedent(block), re.MULTILINE)
    ]


def written() -> list[tuple[str, str]]:
    """Return the documented workflows, and those that the command writes."""
    return [
        *documented(),
        *((name, workflow(name)) for name in ("github", "forgejo")),
        ("reusable", reusable_workflow()),
    ]


def audit(
    text: str, tmp_path: Path, place: str = ".github/workflows/ci.yml"
) -> subprocess.CompletedProcess[str]:
    """Let zizmor judge a workflow without a network; it fails of any finding and of what is no
    workflow.
    """
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return said([ZIZMOR, "--offline", "--no-progress", "--strict-collection", file])


def held_against(schema: str, text: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Hold a file against the schema that its service has published."""
    file = tmp_path / "file.yml"
    file.write_text(text, encoding="utf-8")
    return said([CHECK_JSONSCHEMA, "--builtin-schema", f"vendor.{schema}", file])


def said(command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def test_the_page_shows_what_the_command_writes() -> None:
    shown = dict(documented())
    assert shown["docs/how-to/ci.md-0"] == f"{workflow('github')}\n"
    assert f"/hosts.yml@v{__version__} " in shown["docs/how-to/ci.md-1"]


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in written()])
def test_a_workflow_has_no_finding(text: str, tmp_path: Path) -> None:
    result = audit(text, tmp_path)
    assert result.returncode == 0, result.stdout


def test_the_action_has_no_finding(tmp_path: Path) -> None:
    result = audit(ACTION, tmp_path, "action.yml")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        *(pytest.param("github-workflows", text, id=name) for name, text in written()),
        pytest.param("github-actions", ACTION, id="action"),
        pytest.param("gitlab-ci", workflow("gitlab"), id="gitlab"),
        pytest.param("gitlab-ci", gitlab_hosts(".", ["web", "a$b"]), id="gitlab-hosts"),
    ],
)
def test_a_file_is_as_its_service_has_published(schema: str, text: str, tmp_path: Path) -> None:
    result = held_against(schema, text, tmp_path)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ("github-workflows", workflow("github").replace("runs-on:", "run-on:")),
        ("github-actions", ACTION.replace("using: composite", "using: something")),
        ("gitlab-ci", workflow("gitlab").replace("needs: [list hosts]", "needs: 7")),
    ],
)
def test_what_a_service_does_not_know_is_found(schema: str, text: str, tmp_path: Path) -> None:
    assert held_against(schema, text, tmp_path).returncode != 0


@pytest.mark.parametrize(
    ("before", "after", "finding"),
    [
        ("with: { persist-credentials: false }", "", "artipacked"),
        ("permissions: { contents: read }", "permissions: write-all", "excessive-permissions"),
        ("@3d3c42e5aac5ba805825da76410c181273ba90b1", "@v7", "unpinned-uses"),
        ("  pull_request:", "  pull_request_target:", "dangerous-triggers"),
        ("jobs:", "steps:", "no audit was performed"),
    ],
)
def test_what_a_workflow_must_not_have_is_found(
    before: str, after: str, finding: str, tmp_path: Path
) -> None:
    text = workflow("github")
    assert before in text
    result = audit(text.replace(before, after), tmp_path)
    assert result.returncode != 0
    assert finding in result.stdout


def test_text_of_a_script_from_outside_is_found(tmp_path: Path) -> None:
    text = ACTION.replace("selected=$FLAKE#$(", 'selected="${{ inputs.host }}"$(')
    assert text != ACTION
    result = audit(text, tmp_path, "action.yml")
    assert "template-injection" in result.stdout


def test_the_reusable_workflow_is_the_written_one_but_for_how_it_starts() -> None:
    written, called = yaml.safe_load(workflow("github")), yaml.safe_load(reusable_workflow())
    judge = called["jobs"]["judge"]["steps"][2]["with"]
    assert judge.pop("fail-on") == "${{ inputs.fail-on }}"
    assert written["jobs"]["judge"]["steps"][2]["with"].pop("fail-on") == "medium"
    assert called["jobs"] == written["jobs"]
    assert called["permissions"] == written["permissions"] == {}
    # YAML reads the key as true.
    assert list(called[True]) == ["workflow_call"]


def test_what_may_write_runs_nothing_of_the_flake() -> None:
    jobs = yaml.safe_load(workflow("github"))["jobs"]
    may_write = {name: job for name, job in jobs.items() if "write" in job["permissions"].values()}
    assert list(may_write) == ["code-scanning"]
    for step in may_write["code-scanning"]["steps"]:
        assert step["uses"].startswith(("actions/", "github/"))
        assert "run" not in step


def test_services_of_nix_build_what_the_page_says() -> None:
    assert tomllib.loads(workflow("buildbot-nix")) == {"attribute": "checks"}
    assert "checks.*.*" in yaml.safe_load(workflow("garnix"))["builds"]["include"]
    tree = Parser(Language(tree_sitter_nix.language())).parse(workflow("hydra").encode())
    assert not tree.root_node.has_error
