"""Compiles the bundled catalogue into a wheel; everything else is in ``pyproject.toml``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

_STANDARDS = Path("pytest_nixos/standards")


class BuildWithCatalogue(build_py):
    """Builds the package, and the compiled catalogue into it; a checkout gets none."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        # By its path: the package itself needs what is not installed where wheels are built.
        spec = importlib.util.spec_from_file_location("c", _STANDARDS / "compile_toml.py")
        assert spec is not None and spec.loader is not None
        compiler = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(compiler)
        for folder in compiler.FOLDERS:
            compiler.compile_folder(Path(self.build_lib) / _STANDARDS, folder)


setup(cmdclass={"build_py": BuildWithCatalogue})
