"""Hooks that other plugins and a repository's ``conftest.py`` may implement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_nixos.findings import Finding
    from pytest_nixos.machine.base import Backend, Machine, MachineSpec
    from pytest_nixos.nix.config.host_facts import HostConfig
    from pytest_nixos.plugin.settings.options import Settings
    from pytest_nixos.report import ReportWriter

__all__ = [
    "pytest_nixos_backends",
    "pytest_nixos_catalogue_dirs",
    "pytest_nixos_finding",
    "pytest_nixos_machine_booted",
    "pytest_nixos_machine_spec",
    "pytest_nixos_report_writers",
    "pytest_nixos_suites",
    "pytest_nixos_test_secrets",
]


@pytest.hookspec
def pytest_nixos_backends(config: pytest.Config, settings: Settings) -> Mapping[str, Backend]:
    """Offer backends by name; a name offered here replaces the bundled backend of that name."""
    raise NotImplementedError


@pytest.hookspec
def pytest_nixos_suites(config: pytest.Config) -> Iterable[str]:
    """Name importable packages that hold suites: one sub-package a suite, as
    ``pytest_nixos.checks``.
    """
    raise NotImplementedError


@pytest.hookspec
def pytest_nixos_catalogue_dirs(config: pytest.Config) -> Iterable[Path]:
    """Name directories with more controls and profiles, in the format of the bundled catalogue."""
    raise NotImplementedError


@pytest.hookspec
def pytest_nixos_report_writers(config: pytest.Config) -> Mapping[str, ReportWriter]:
    """Offer writers for ``--nixos-report FORMAT:PATH`` by format."""
    raise NotImplementedError


@pytest.hookspec(firstresult=True)
def pytest_nixos_machine_spec(config: pytest.Config, spec: MachineSpec) -> MachineSpec | None:
    """Change the spec of a machine before it starts (memory, cores, limits); the first answer
    counts.
    """
    raise NotImplementedError


@pytest.hookspec
def pytest_nixos_test_secrets(
    config: pytest.Config, host: HostConfig
) -> Mapping[str, str | bytes] | None:
    """Give values for secrets that a host declares, by name; what nobody gives is made."""
    raise NotImplementedError


@pytest.hookspec
def pytest_nixos_machine_booted(config: pytest.Config, machine: Machine) -> None:
    """Learn that a machine runs and has settled."""
    raise NotImplementedError


@pytest.hookspec
def pytest_nixos_finding(config: pytest.Config, finding: Finding) -> None:
    """Learn of each finding as it happens; under xdist in the controlling process only."""
    raise NotImplementedError
