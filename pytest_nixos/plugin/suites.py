"""Packages of suites: where they lie, and how pytest collects them by their canonical names."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from pytest_nixos.errors import SettingsError

__all__ = [
    "BUNDLED_SUITES",
    "DATA_CONTROLS",
    "SuiteModule",
    "SuitePackages",
    "collect_suite_directory",
    "is_store_link",
]

BUNDLED_SUITES = "pytest_nixos.checks"
#: The module whose one test judges data controls.
DATA_CONTROLS = f"{BUNDLED_SUITES}.catalogue.test_catalogue"
_STORE = Path("/nix/store")


class SuitePackages(msgspec.Struct, frozen=True):
    """Where the packages that hold suites lie: canonical package name to directory."""

    directories: Mapping[str, Path]
    _names: dict[Path, str | None] = msgspec.field(default_factory=dict)

    @classmethod
    def locate(cls, names: Iterable[str]) -> SuitePackages:
        """Find packages by import name, without importing what is in them.

        :raises SettingsError: if one of them cannot be imported.
        """
        directories = {}
        for name in names:
            spec = importlib.util.find_spec(name)
            places = list(spec.submodule_search_locations or ()) if spec else []
            if not places:
                raise SettingsError(
                    f"suite package {name!r}: no such importable package",
                    remedy="install the distribution that holds it, or mend the pytest_nixos_suites hook",
                )
            directories[name] = Path(places[0]).resolve()
        return cls(directories)

    def module_name(self, path: Path) -> str | None:
        """Return the canonical import name of a file or directory in a suite package."""
        if path not in self._names:
            self._names[path] = self._module_name(path)
        return self._names[path]

    def _module_name(self, path: Path) -> str | None:
        for name, directory in self.directories.items():
            if path.is_relative_to(directory):
                parts = path.relative_to(directory).parts
                return ".".join((name, *parts)).removesuffix(".py")
        return None

    def contains(self, path: Path) -> bool:
        """Whether `path` lies in a suite package."""
        return self.module_name(path) is not None


class SuiteDirectory(pytest.Directory):
    """A directory of a suite package, collected without becoming an import root."""

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        """Yield collectors of its sub-packages and test modules, in order of name."""
        for path in sorted(self.path.iterdir()):
            if path.is_dir() and (path / "__init__.py").is_file():
                made = self.ihook.pytest_collect_directory(path=path, parent=self)
                yield from [made] if made is not None else []
            elif path.is_file():
                yield from self.ihook.pytest_collect_file(file_path=path, parent=self)


class SuiteModule(pytest.Module):
    """A module of a suite package, imported by its canonical name.

    pytest's own import modes would put an editable install's source folder on ``sys.path`` and
    import ``checks.firewall``, which collides with a repository that has a ``checks`` of its own.
    """

    canonical_name: str

    @property
    def is_bundled(self) -> bool:
        """Whether it is one of this project."""
        return self.canonical_name.startswith(f"{BUNDLED_SUITES}.")

    def _getobj(self) -> ModuleType:
        return importlib.import_module(self.canonical_name)


def collect_suite_directory(
    packages: SuitePackages, path: Path, parent: pytest.Collector
) -> pytest.Collector | None:
    """Make the collector of a suite's directory or module, or ``None`` if `path` is not one."""
    name = packages.module_name(path)
    if name is None:
        return None
    nodeid = "/".join(name.split("."))
    if path.is_dir():
        return SuiteDirectory.from_parent(parent, path=path, nodeid=nodeid)
    module: SuiteModule = SuiteModule.from_parent(parent, path=path, nodeid=f"{nodeid}.py")
    module.canonical_name = name
    return module


def is_store_link(path: Path) -> bool:
    """Whether `path` is a link into the Nix store, such as ``result``: never a place for tests."""
    return path.is_symlink() and path.resolve().is_relative_to(_STORE)
