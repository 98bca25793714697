"""pytest-nixos: prove that a NixOS host is what its flake says."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same names as below, for type checkers
    from pytest_nixos import observe
    from pytest_nixos.dev_shell import DevShell, ShellVisit
    from pytest_nixos.errors import (
        BootError,
        BuildError,
        CatalogueError,
        CommandTimeout,
        EvalError,
        FaultError,
        FlakeError,
        GenerationError,
        MachineError,
        NixosError,
        TransportError,
    )
    from pytest_nixos.faults import Faults, Hog
    from pytest_nixos.findings import Evidence, Finding, Outcome, Severity
    from pytest_nixos.generations import (
        Announced,
        Delta,
        Generation,
        Generations,
        Links,
        OtherFlake,
        OtherHost,
        PowerOutcome,
        Specialisation,
        StorePath,
        SwitchEnd,
        SwitchOutcome,
        UnitChanges,
        Verb,
    )
    from pytest_nixos.host_config import (
        Firewall,
        HostConfig,
        OllamaSettings,
        PortRange,
        Unit,
        Zram,
    )
    from pytest_nixos.machine.base import CommandResult, Machine, PortState
    from pytest_nixos.machine.cluster import Cluster
    from pytest_nixos.machine.power import BootsFrom
    from pytest_nixos.observe.base import Probe
    from pytest_nixos.observe.store import Observations
    from pytest_nixos.outcomes import not_applicable
    from pytest_nixos.standards.model import Control
    from pytest_nixos.timing import Deadline, poll
    from pytest_nixos.whole_flake import Flake, FlakeHost, NixAnswer

__all__ = [
    "Announced",
    "BootError",
    "BootsFrom",
    "BuildError",
    "CatalogueError",
    "Cluster",
    "CommandResult",
    "CommandTimeout",
    "Control",
    "Deadline",
    "Delta",
    "DevShell",
    "EvalError",
    "Evidence",
    "FaultError",
    "Faults",
    "Finding",
    "Firewall",
    "Flake",
    "FlakeError",
    "FlakeHost",
    "Generation",
    "GenerationError",
    "Generations",
    "Hog",
    "HostConfig",
    "Links",
    "Machine",
    "MachineError",
    "NixAnswer",
    "NixosError",
    "Observations",
    "OllamaSettings",
    "OtherFlake",
    "OtherHost",
    "Outcome",
    "PortRange",
    "PortState",
    "PowerOutcome",
    "Probe",
    "Severity",
    "ShellVisit",
    "Specialisation",
    "StorePath",
    "SwitchEnd",
    "SwitchOutcome",
    "TransportError",
    "Unit",
    "UnitChanges",
    "Verb",
    "Zram",
    "__version__",
    "not_applicable",
    "observe",
    "poll",
]

try:
    __version__ = version("pytest-nixos")
except PackageNotFoundError:  # a source tree on sys.path, not installed
    __version__ = "0+unknown"

_HOME = {
    "BootError": "errors",
    "BuildError": "errors",
    "CatalogueError": "errors",
    "CommandTimeout": "errors",
    "EvalError": "errors",
    "FaultError": "errors",
    "FlakeError": "errors",
    "GenerationError": "errors",
    "MachineError": "errors",
    "NixosError": "errors",
    "TransportError": "errors",
    "DevShell": "dev_shell",
    "ShellVisit": "dev_shell",
    "Cluster": "machine.cluster",
    "Flake": "whole_flake",
    "FlakeHost": "whole_flake",
    "NixAnswer": "whole_flake",
    "Deadline": "timing",
    "poll": "timing",
    "Announced": "generations",
    "Delta": "generations",
    "Generation": "generations",
    "Generations": "generations",
    "Links": "generations",
    "OtherFlake": "generations",
    "OtherHost": "generations",
    "PowerOutcome": "generations",
    "Specialisation": "generations",
    "StorePath": "generations",
    "SwitchEnd": "generations",
    "SwitchOutcome": "generations",
    "UnitChanges": "generations",
    "Verb": "generations",
    "BootsFrom": "machine.power",
    "Faults": "faults",
    "Hog": "faults",
    "Firewall": "host_config",
    "HostConfig": "host_config",
    "OllamaSettings": "host_config",
    "PortRange": "host_config",
    "Unit": "host_config",
    "Zram": "host_config",
    "CommandResult": "machine.base",
    "Machine": "machine.base",
    "PortState": "machine.base",
    "Evidence": "findings",
    "Finding": "findings",
    "Outcome": "findings",
    "Severity": "findings",
    "Observations": "observe.store",
    "Probe": "observe.base",
    "Control": "standards.model",
    "not_applicable": "outcomes",
}


def __getattr__(name: str) -> object:
    # Names load when they are first used: importing the plugin must not slow down other pytest runs.
    if name == "observe":
        return importlib.import_module(f"{__name__}.observe")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
