"""Files that a how-to shows, put where the page says."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Guide", "follow"]

PAGES = Path(__file__).parents[2] / "docs/how-to"
_BLOCK = re.compile(r"^`(?P<path>[^`\n]+)`:\n\n```\w+\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)


class Guide:
    """One page and the files that it shows, by the name above each."""

    def __init__(self, name: str) -> None:
        text = (PAGES / name).read_text(encoding="utf-8")
        self.files = {block["path"]: block["text"] for block in _BLOCK.finditer(text)}

    def tests(self, path: str) -> Sequence[str]:
        """Return the names of the test functions in a file of the page."""
        return re.findall(r"^def (test_\w+)", self.files[path], re.MULTILINE)

    def run(self, path: str, name: str, **fixtures: object) -> None:
        """Run one test function of a file of the page."""
        namespace: dict[str, Any] = {"__name__": "how_to"}
        exec(compile(self.files[path], path, "exec"), namespace)
        namespace[name](**fixtures)


def follow(guide: Guide, path: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a module of the page into its package, as if it lay in the package's directory."""
    folder, _, file = path.rpartition("/")
    package = importlib.import_module(folder.replace("/", "."))
    here = directory / folder.replace("/", "-")
    here.mkdir(exist_ok=True)
    (here / file).write_text(guide.files[path], encoding="utf-8")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(here)])
    stem = file.removesuffix(".py")
    name = f"{package.__name__}.{stem}"
    # Both are taken away again with what stands there now: nothing.
    monkeypatch.setattr(package, stem, None, raising=False)
    monkeypatch.setitem(sys.modules, name, package)
    del sys.modules[name]
    importlib.import_module(name)
