"""The built wheel works as the editable install does: same checks, same data files, canonical
names.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.wheel import ROOT, build_wheels


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    build_wheels(target, ROOT)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python whose dependencies are this one's, and whose pytest_nixos is the wheel's."""
    directory = tmp_path_factory.mktemp("venv")
    venv.create(directory, with_pip=False, symlinks=True)
    (site,) = (directory / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    ours = [p for p in sys.path if p.endswith("site-packages")]
    # The editable install of this checkout comes through a .pth file, which is not read below
    # PYTHONPATH.
    (site / "dependencies.pth").write_text(
        "\n".join(f"import sys; sys.path.append({p!r})" for p in ours)
    )
    return directory / "bin" / "python"


def names(python: Path | str, expression: str) -> list[str]:
    program = (
        f"import importlib, pytest_nixos.checks, pkgutil; print(*sorted({expression}), sep='\\n')"
    )
    done = subprocess.run(
        [python, "-c", program], check=True, capture_output=True, text=True, cwd="/"
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "name",
    [
        "pytest_nixos/py.typed",
        "pytest_nixos/nix/expressions/host-config.nix",
        "pytest_nixos/machine/channel/guest_channel.bash",
        "pytest_nixos/standards/schema.json",
        "pytest_nixos/standards/catalogue/firewall.toml",
        "pytest_nixos/standards/frameworks/nis2.toml",
        "pytest_nixos/standards/profiles/baseline.toml",
        "pytest_nixos/checks/firewall/test_firewall.py",
    ],
)
def test_wheel_holds(wheel: Path, name: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert name in archive.namelist()


def test_wheel_holds_every_module(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {
            n for n in archive.namelist() if n.endswith((".py", ".nix", ".toml", ".bash", ".json"))
        }
    tracked = subprocess.run(
        ["git", "ls-files", "pytest_nixos", "checks"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    wanted = {
        (f"pytest_nixos/{name}" if name.startswith("checks/") else name)
        for name in tracked
        if name.endswith((".py", ".nix", ".toml", ".bash", ".json"))
    }
    assert wanted <= packed


def test_wheel_and_editable_install_have_the_same_checks(installed: Path) -> None:
    walk = "m.name for m in pkgutil.walk_packages(pytest_nixos.checks.__path__, 'pytest_nixos.checks.')"
    assert names(installed, walk) == names(sys.executable, walk) != []


def test_wheel_is_what_was_imported(installed: Path) -> None:
    (place,) = names(installed, "[pytest_nixos.checks.__file__]")
    assert str(installed.parent.parent) in place


def test_wheel_refuses_checks_without_host(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [installed, "-m", "pytest", "--pyargs", "pytest_nixos.checks"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "needs a host" in done.stdout
    assert " passed" not in done.stdout.splitlines()[-1]


def test_only_tests_are_rewritten_by_pytest(installed: Path, tmp_path: Path) -> None:
    # Where rewritten bytecode cannot be kept (a Nix store), pytest parses all that it rewrites in
    # each run.
    (tmp_path / "test_loaders.py").write_text(
        "import sys\n"
        "import pytest_nixos.standards.load\n"
        "import pytest_nixos.checks.firewall.test_firewall\n"
        "def test_loaders():\n"
        "    rewritten = {\n"
        "        name for name, module in sys.modules.items()\n"
        "        if name.startswith('pytest_nixos.')\n"
        "        and type(module.__loader__).__name__ == 'AssertionRewritingHook'\n"
        "    }\n"
        "    # What pytest itself imports before the plugin can say anything.\n"
        "    first = {'pytest_nixos.plugin', 'pytest_nixos.plugin.plain_import'}\n"
        "    assert rewritten - first == {'pytest_nixos.checks.firewall.test_firewall'}\n"
    )
    done = subprocess.run(
        [installed, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_catalogue_of_the_wheel_is_compiled(installed: Path, tmp_path: Path) -> None:
    # On a read-only install without a home nothing else can keep what was parsed.
    program = (
        "import tomllib\n"
        "tomllib.loads = None\n"
        "from pytest_nixos.standards.load import load_catalogue\n"
        "from pytest_nixos.standards.profile import load_profiles\n"
        "print(len(load_profiles(load_catalogue())))"
    )
    (tmp_path / "file").touch()
    done = subprocess.run(
        [installed, "-c", program],
        cwd="/",
        env={"XDG_CACHE_HOME": str(tmp_path / "file/none")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5


def test_the_flake_names_the_same_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[<>=!~ ]", text)[0].replace(".", "-") for text in project["dependencies"]}
    assert set(re.findall(r'"(.+)"', (ROOT / "nix" / "dependencies.nix").read_text())) == wanted
