"""A fake ``nix`` on PATH and a fake backend: what pytest does, without Nix or a machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.plugin.field import CONFTEST, Field
from tests.unit.host_documents import document

HERE = Path(__file__).parent


@pytest.fixture
def field(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Field:
    """Prepare the directory; the flake has the hosts ``web`` and ``db.one``."""
    tools = pytester.mkdir("tools")
    program = tools / "nix"
    program.write_text(f"#!{sys.executable}\n{(HERE / 'fake_nix.py').read_text()}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:randomly")  # one test shuffles
    monkeypatch.delenv("CI", raising=False)  # pytest shows whole messages in its summary then
    monkeypatch.setenv("FAKE_NIX_HOSTS", "web db.one")
    monkeypatch.setenv("FAKE_NIX_DOCUMENT", str(pytester.path / "document.json"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(pytester.path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(pytester.path / "state"))
    (pytester.path / "flake.nix").write_text("{ }")
    (pytester.path / "document.json").write_text(json.dumps(document()))
    log = pytester.path / "machines.log"
    pytester.makeconftest(CONFTEST.format(log=str(log)))
    return Field(pytester, log)
