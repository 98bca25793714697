"""The built site: names are links, and a link that leads nowhere fails the build."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from docs.generate.__main__ import DOCS, generated
from docs.generate.plugin import plugin_page
from docs.generate.site import build, linked
from pytest_nixos.plugin.hooks import MARKERS
from pytest_nixos.plugin.settings.declared_options import option_rows

SUITES = {"FW-003": "firewall"}
ANCHORS = {"nixos-flake": "nixos-flake", "nixos_machine": "fixture-nixos_machine"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("judged by FW-003.", "judged by [FW-003](../reference/controls/firewall/FW-003.md)."),
        ("`FW-003` in code", "`FW-003` in code"),
        ("NO-999 is none", "NO-999 is none"),
        (
            "use `--nixos-flake .#host`",
            "use [`--nixos-flake .#host`](../reference/plugin.md#nixos-flake)",
        ),
        (
            "the fixture `nixos_machine`",
            "the fixture [`nixos_machine`](../reference/plugin.md#fixture-nixos_machine)",
        ),
        ("`nixos_nothing`", "`nixos_nothing`"),
        ("# FW-003 in a heading", "# FW-003 in a heading"),
        ("[FW-003](x.md) is a link already", "[FW-003](x.md) is a link already"),
        ("```\nFW-003 `nixos_machine`\n```", "```\nFW-003 `nixos_machine`\n```"),
    ],
)
def test_names_become_links_in_prose_only(text: str, expected: str) -> None:
    assert linked(text, "../", SUITES, ANCHORS) == f"{expected}\n"


def test_the_page_of_the_plugin_names_everything() -> None:
    page = plugin_page()
    for typed, _, _ in option_rows():
        assert typed in page
    for marker in MARKERS:
        assert marker.partition("(")[0].partition(":")[0] in page
    for name in ("host", "nixos_machine", "nixos_judge", "pytest_nixos_finding", "Machine"):
        assert f"`{name}" in page


@pytest.mark.parametrize(("goal", "holds"), [("other.md", True), ("gone.md", False)])
def test_a_broken_link_fails_the_build(tmp_path: Path, goal: str, holds: bool) -> None:
    docs = tmp_path / "docs"
    for folder in ("tutorial", "explanation", "reference/controls"):
        (docs / folder).mkdir(parents=True)
    shutil.copy(DOCS / "mkdocs.yml", docs)
    for page in ("tutorial/first-host", *(f"explanation/{n}" for n in PAGES), "tutorial/other"):
        (docs / f"{page}.md").write_text("# Page\n")
    (docs / "tutorial/more.md").write_text(f"# More\n\n[there]({goal})\n")
    made = {
        path: "# Made\n"
        for path in generated()
        if path.name in ("plugin.md", "README.md", "firewall.md")
    }
    assert (build(docs, made) == 0) is holds


PAGES = ("architecture", "glossary", "security")
