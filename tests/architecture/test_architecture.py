"""The house rules that a program can hold: imports, no knowledge of the stand-in, every check
with a control.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pytest_nixos.standards.load import load_catalogue

ROOT = Path(__file__).parents[2]
PACKAGE = sorted((ROOT / "pytest_nixos").rglob("*.py"))
CHECKS = sorted((ROOT / "checks").rglob("*.py"))
NIX = [ROOT / "flake.nix", *(ROOT / "nix").glob("*.nix"), *(ROOT / "pytest_nixos").rglob("*.nix")]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return names


def control_markers() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in CHECKS:
        for control in re.findall(r'nixos_control\(\s*"([^"]+)"', path.read_text()):
            found.setdefault(control, []).append(path)
    return found


def test_import_contracts_hold() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.parametrize("path", PACKAGE + CHECKS, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_line_knows_of_the_stand_in(path: Path) -> None:
    text = path.read_text().lower()
    assert not re.search(r"offline.stand-?in|offline-nixpkgs|example-flake", text)


@pytest.mark.parametrize("path", CHECKS, ids=lambda p: str(p.relative_to(ROOT)))
def test_checks_use_public_names_only(path: Path) -> None:
    modules = {name for name in imported(path) if name.startswith("pytest_nixos")}
    assert modules <= {"pytest_nixos"}


def test_every_check_has_a_control_and_every_checked_control_a_check() -> None:
    catalogue = load_catalogue()
    marked = control_markers()
    unknown = set(marked) - {control.id for control in catalogue}
    assert not unknown
    assert all(catalogue.control(control_id).check for control_id in marked)
    assert {c.id for c in catalogue if c.check} <= set(marked)


@pytest.mark.parametrize("path", NIX, ids=lambda path: path.name)
def test_nix_files_import_without_a_copy(path: Path) -> None:
    """A path in a string is copied to the store, which `nix flake check --no-build` must not do."""
    assert not re.search(r"""import\s+"\$\{""", path.read_text())


def test_public_names_resolve() -> None:
    import pytest_nixos

    for name in pytest_nixos.__all__:
        assert getattr(pytest_nixos, name) is not None


def test_the_wheel_holds_every_package() -> None:
    """A package that the list lacks is there in an editable install, and not for users."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    folders = {path.parent.relative_to(ROOT) for path in PACKAGE if path.name == "__init__.py"}
    packages = {".".join(folder.parts) for folder in folders}
    packages |= {
        ".".join(("pytest_nixos", *path.parent.relative_to(ROOT).parts))
        for path in CHECKS
        if path.name == "__init__.py"
    }

    assert packages - set(tools["setuptools"]["packages"]) == set()
