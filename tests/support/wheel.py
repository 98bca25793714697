"""Wheels of this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["ROOT", "build_wheels"]

ROOT = Path(__file__).parents[2]


def build_wheels(target: Path, *projects: Path) -> None:
    """Build a wheel of each into `target`; nothing is written into their directories, where another
    worker may build or look for modules at that moment.
    """
    for number, project in enumerate(projects):
        work = target / f"work-{number}"
        work.mkdir()
        # setuptools reads it beside the project's own.
        configuration = work / "setup.cfg"
        configuration.write_text(f"[build]\nbuild_base = {work}\n[egg_info]\negg_base = {work}\n")
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
                *("--wheel-dir", target, project),
            ],
            check=True,
            capture_output=True,
            env={**os.environ, "DIST_EXTRA_CONFIG": str(configuration)},
        )
