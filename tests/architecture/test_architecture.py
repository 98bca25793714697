"""The house rules that a program can hold: imports, no knowledge of the stand-in, every check
with a control.
"""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
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


@pytest.mark.parametrize(
    "name", ["pytest_nixos", "pytest_nixos.generations", "pytest_nixos.observe"]
)
def test_no_name_that_loads_late_is_a_modules(name: str) -> None:
    # An import of that module would put it in the name's place.
    package = importlib.import_module(name)
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert modules
    assert modules.isdisjoint(package._HOME)


#: What a run of one host from a snapshot has no use for, each with what may load it; modules that
#: are loaded for nothing are what makes a warm run slow.
_SELDOM = {
    "asyncssh": "pytest-nixos ssh, and stage 1 that is unlocked over the network",
    "cryptography": "test secrets and certificates",
    "jinja2": "the HTML report",
    "jsonschema": "files of users",
    "rich": "the summary and pytest-nixos' commands",
    "tarfile": "templates of containers",
    "tree_sitter": "Nix files and polkit's rules",
    "xdist.scheduler": "runs with workers",
    "pytest_nixos.generations.generations": "tests that switch",
    "pytest_nixos.machine.cluster": "tests of several machines",
    "pytest_nixos.machine.container": "hosts that are containers",
    "pytest_nixos.machine.faults": "tests of faults",
    "pytest_nixos.machine.login.by_password": "logins",
    "pytest_nixos.machine.ssh": "live hosts",
    "pytest_nixos.nix.dev_shells.visit": "development shells",
    "pytest_nixos.observe.firewall.read": "a packet filter that was shown",
    "pytest_nixos.recording.recording": "a recording",
    "pytest_nixos.report.formats.html_report": "the HTML report",
    "pytest_nixos.secrets.scan": "text that was read",
    "pytest_nixos.test_secrets.archive": "hosts with secrets",
}


_DATACLASSES = 32


def test_a_warm_run_imports_nothing_that_it_has_no_use_for() -> None:
    tests = [
        f"pytest_nixos.checks.{path.parent.name}.{path.stem}"
        for path in sorted((ROOT / "checks").glob("*/test_*.py"))
    ]
    assert tests
    program = (
        "import importlib, json, sys\n"
        "names = json.loads(sys.argv[1])\n"
        "for name in names: importlib.import_module(name)\n"
        "made = {f'{kind.__module__}.{kind.__qualname__}' for module in list(sys.modules.values())"
        " for kind in list(vars(module).values())"
        " if isinstance(kind, type) and '__dataclass_fields__' in vars(kind)}\n"
        "ours = sorted(name for name in made if name.startswith('pytest_nixos.'))\n"
        "print(json.dumps([list(sys.modules), ours]))\n"
    )
    wanted = ["pytest_nixos.plugin.run_hooks", "pytest_nixos.machine.vm.backend", *tests]
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(wanted)],
        check=True,
        capture_output=True,
        text=True,
    )
    loaded, dataclasses = json.loads(done.stdout)
    assert set(wanted) <= set(loaded)
    assert {name: _SELDOM[name] for name in loaded if name in _SELDOM} == {}
    # Each takes 0.7 ms to create, a msgspec.Struct a fiftieth of that.
    assert len(dataclasses) <= _DATACLASSES, dataclasses


def test_what_helps_checks_says_what_it_asserts() -> None:
    # pytest rewrites the asserts of test modules alone: see plugin/plain_import.py.
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / "checks").glob("**/*.py")
        if not path.name.startswith("test_")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert) and node.msg is None
    ]
    assert not silent


@pytest.mark.parametrize(
    "path", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=lambda p: p.name
)
def test_no_page_holds_what_a_merge_left(path: Path) -> None:
    assert not re.search(r"^(<{7}|>{7}) ", path.read_text(), re.MULTILINE)
