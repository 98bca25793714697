"""Tells pytest-nixos of the suites, controls and profiles in this package."""

from pathlib import Path


def pytest_nixos_suites():
    """Each sub-package of this one is a suite."""
    return ["acme_nixos.checks"]


def pytest_nixos_catalogue_dirs():
    """Controls, and below `profiles` which of them belong together."""
    return [Path(__file__).parent / "catalogue"]
