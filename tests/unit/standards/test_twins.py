"""Every kind of observation has a bad line in a host of the example flake."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_nixos.backend_name import BackendName
from pytest_nixos.standards.control.model import Control
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.standards.load import load_catalogue
from pytest_nixos.standards.profile import load_profiles, select_controls
from tests.machine.twins import CATALOGUE, KERNEL, STALE

EXAMPLE = Path(__file__).parents[3] / "example-flake"
CONTROLS = load_catalogue()
BROKEN = {**CATALOGUE, **STALE, **KERNEL}
#: The stand-in has no podman; the guest's answers are recorded in observe/test_podman instead.
WITHOUT_PROGRAM = {"podman"}


def kind_of(control: Control) -> str:
    return control.observed.kind if control.observed is not None else "config alone"


def bare_metal_only() -> set[str]:
    """Return the kinds of which no control can be judged in a VM or a container."""
    judged = {
        kind_of(control)
        for control in CONTROLS
        if control.is_data and (control.applies_to - control.falsified_in) - {BackendName.SSH}
    }
    return {kind_of(c) for c in CONTROLS if c.is_data} - judged


def test_every_kind_has_a_bad_line() -> None:
    broken = {kind_of(CONTROLS.control(name)) for name in BROKEN}
    assert broken | bare_metal_only() | WITHOUT_PROGRAM == {*KINDS, "config alone"}
    assert bare_metal_only() == {"clock", "drift", "mount-declared", "oci-drift", "processor"}


def test_every_bad_line_stands_in_its_host() -> None:
    for name, broken in (
        ("hosts/catalogue-bad.nix", CATALOGUE),
        ("hosts/llm-host-bad.nix", KERNEL),
    ):
        lines = re.findall(r"# breaks: ([^\n]*)", (EXAMPLE / name).read_text())
        promised = {c for line in lines for c in re.findall(r"\b[A-Z]+-D?\d+\b", line)}
        assert set(broken) <= promised, name
        kinds = {kind for line in lines for kind in re.findall(r"\[([a-z, -]+)\]", line)}
        assert {kind_of(CONTROLS.control(c)).replace("config alone", "eval") for c in broken} <= {
            *kinds,
        }, name


def test_profiles_of_the_example_select_what_the_twins_break() -> None:
    profiles = load_profiles(CONTROLS, [EXAMPLE / "standards"])
    for name, broken in (("twins", CATALOGUE), ("stale", STALE)):
        selected = select_controls([name], profiles, CONTROLS)
        assert {c.id: c.severity.name for c in selected} == {c: s for c, (s, _) in broken.items()}
    kernel = {c.id for c in select_controls(["kernel-twins"], profiles, CONTROLS)}
    assert set(KERNEL) <= kernel
