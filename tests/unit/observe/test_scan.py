"""Scans of the file systems."""

from __future__ import annotations

from pathlib import Path

from pytest_nixos.observe.fact import fact_probe
from pytest_nixos.observe.scan import SCAN_FACTS
from tests.unit.observe.here import ask, moved


def test_one_walk_answers_all_scans(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "open dir").mkdir(parents=True)
    (tree / "open dir").chmod(0o777)
    (tree / "sticky").mkdir()
    (tree / "sticky").chmod(0o1777)
    for name, mode in (("open", 0o666), ("setuid", 0o4755), ("plain", 0o644)):
        (tree / name).write_text("x")
        (tree / name).chmod(mode)
    wanted = ["world-writable-directories", "world-writable-files", "setuid-outside-wrappers"]
    probe = fact_probe("scan", SCAN_FACTS, wanted)
    assert probe.script.count("find / ") == 1
    assert ask(moved(probe, "find / ", f"find {tree} ")) == {
        "world-writable-directories": [f"{tree}/open dir"],
        "world-writable-files": [f"{tree}/open"],
        "setuid-outside-wrappers": [f"{tree}/setuid"],
    }
