"""pytest-nixos: prove that a NixOS host is what its flake says."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version

__all__ = [
    "BootError",
    "BuildError",
    "CatalogueError",
    "CommandResult",
    "CommandTimeout",
    "Control",
    "Deadline",
    "EvalError",
    "Evidence",
    "Finding",
    "FlakeError",
    "HostConfig",
    "Machine",
    "MachineError",
    "NixosError",
    "Observations",
    "Outcome",
    "PortState",
    "Probe",
    "Severity",
    "TransportError",
    "__version__",
    "not_applicable",
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
    "FlakeError": "errors",
    "MachineError": "errors",
    "NixosError": "errors",
    "TransportError": "errors",
    "Deadline": "timing",
    "poll": "timing",
    "HostConfig": "host_config",
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
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
