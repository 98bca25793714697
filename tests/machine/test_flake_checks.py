"""Checks of the flake itself, for real: the example flake passes, its careless twin fails
exactly what it names.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.machine.test_example_flake import EXAMPLE, OVERRIDES, failing, judge, passed

CHECKED = {
    *(f"DEV-00{n}" for n in (1, 2, 3, 4, 5, 6, 8)),
    *("FLK-002", "FLK-007", "FLK-011"),
}
PROFILE = """\
profile = "flake-checks"
title = "Flake"
description = "Checks of the flake itself."
[select]
controls = {controls}
"""

pytestmark = [
    pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]


@pytest.fixture
def selected(tmp_path: Path) -> tuple[str, ...]:
    profiles = tmp_path / "catalogue/profiles"
    profiles.mkdir(parents=True)
    (profiles / "flake-checks.toml").write_text(PROFILE.format(controls=sorted(CHECKED)))
    return ("--nixos-catalogue", str(tmp_path / "catalogue"), "--nixos-profile", "flake-checks")


def test_example_flake_passes(tmp_path: Path, selected: tuple[str, ...]) -> None:
    status, report, printed = judge("container-host", tmp_path, *selected)
    assert failing(report) == set(), printed
    assert status == 0
    # Without direnv on this machine DEV-006 is not applicable.
    assert CHECKED - {"DEV-006"} <= passed(report)


def test_careless_flake_fails_what_it_names(tmp_path: Path, selected: tuple[str, ...]) -> None:
    careless = EXAMPLE / "careless"
    text = "".join((careless / name).read_text() for name in ("flake.nix", ".envrc"))
    promised = set(re.findall(r"# breaks: ([A-Z]+-\d+)", text))
    assert promised == CHECKED
    _, report, printed = judge("careless", tmp_path, *selected, flake=careless)
    found = {f["control"] for f in report["findings"] if f["outcome"] != "passed"}
    assert found == CHECKED, printed
    assert passed(report) == set()
