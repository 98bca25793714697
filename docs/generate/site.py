"""The site: all pages of ``docs`` and one page a control, built by MkDocs; a link that leads
nowhere fails the build.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["build", "linked"]

_SOURCE = Path(".dev/site-source")
_SITE = Path(".dev/site")
_CONTROL = re.compile(r"(?<![\w/`#-])\b([A-Z]{2,8}-D?\d{2,3})\b(?![\w`-]|\.\w)")
# An option, a marker, a fixture or a hook, alone in code marks.
_NAME = re.compile(r"`(?P<text>(?:--)?(?P<name>(?:pytest_)?nixos[-_][a-z_-]+)[^`]*)`")
_ANCHOR = re.compile(r'<a id="([^"]+)"></a>')
_PLUGIN = "reference/plugin.md"
_HOME = """# pytest-nixos

Prove that a NixOS host is what its flake says.

- [Tutorial: your first host](tutorial/first-host.md)
- [How the house is built](explanation/architecture.md), [the words](explanation/glossary.md), [what is kept apart](explanation/security.md)
- [Options, markers, fixtures, hooks](reference/plugin.md)
- [Controls](reference/controls/README.md)
"""


def build(docs: Path, made: Mapping[Path, str]) -> int:
    """Build the site into ``.dev/site``.

    :param made: pages made from code, by path below `docs`.
    :return: exit status of MkDocs: not 0 where a link is broken.
    """
    source = docs.parent / _SOURCE
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(
        docs, source, ignore=shutil.ignore_patterns("generate", "mkdocs.yml", "__pycache__")
    )
    # One page a control takes the place of the anchors in the suites' pages.
    shutil.rmtree(source / "reference/controls")
    for path, text in made.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(text, encoding="utf-8")
    (source / "index.md").write_text(_HOME, encoding="utf-8")
    suites = {path.stem: path.parent.name for path in made if path.parent.parent.name == "controls"}
    anchors = _anchors(made[Path(_PLUGIN)])
    for page in source.rglob("*.md"):
        if page.relative_to(source) not in made:
            page.write_text(
                linked(page.read_text(encoding="utf-8"), _up(page, source), suites, anchors)
            )
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    command += ["--config-file", str(docs / "mkdocs.yml"), "--site-dir", str(docs.parent / _SITE)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, check=False, cwd=docs.parent, env=environment).returncode


def _up(page: Path, source: Path) -> str:
    return "../" * (len(page.relative_to(source).parts) - 1)


def linked(text: str, up: str, suites: Mapping[str, str], anchors: Mapping[str, str]) -> str:
    """Link controls and names of the plugin in prose: not in code, headings or what is a link
    already.
    """
    lines = []
    fenced = False
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith("```")
        if fenced or line.startswith("#") or "](" in line:
            lines.append(line)
            continue
        linked = _CONTROL.sub(lambda found: _control(found[1], up, suites), line)
        lines.append(_NAME.sub(lambda found: _name(found, up, anchors), linked))
    return "\n".join(lines) + "\n"


def _control(name: str, up: str, suites: Mapping[str, str]) -> str:
    suite = suites.get(name)
    return name if suite is None else f"[{name}]({up}reference/controls/{suite}/{name}.md)"


def _name(found: re.Match[str], up: str, anchors: Mapping[str, str]) -> str:
    anchor = anchors.get(found["name"])
    return found[0] if anchor is None else f"[`{found['text']}`]({up}{_PLUGIN}#{anchor})"


def _anchors(page: str) -> Mapping[str, str]:
    """Return the names that the plugin's page explains, with their anchors."""
    ids = _ANCHOR.findall(page)
    return {re.sub(r"^(?:marker|fixture|hook)-", "", anchor): anchor for anchor in reversed(ids)}
