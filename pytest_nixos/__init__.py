"""pytest-nixos: prove that a NixOS host is what its flake says."""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same names as below, for type checkers
    __version__: str
    from pytest_nixos import observe
    from pytest_nixos.errors import (
        BootError,
        BuildError,
        CatalogueError,
        CommandTimeout,
        EvalError,
        FaultError,
        FlakeError,
        GenerationError,
        LoginRefused,
        MachineError,
        NixosError,
        TransportError,
    )
    from pytest_nixos.findings import Evidence, Finding, Outcome, Severity
    from pytest_nixos.generations import (
        Announced,
        Delta,
        Difference,
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
        against_fresh_boot,
    )
    from pytest_nixos.generations.upgrade_outcome import UpgradeOutcome
    from pytest_nixos.local.timing import Deadline, poll
    from pytest_nixos.machine.base import Machine
    from pytest_nixos.machine.capabilities import BootsFrom, LostWrites, PortState
    from pytest_nixos.machine.cluster.cluster import Cluster
    from pytest_nixos.machine.cluster.tunnel import ClusterTunnel, TunnelTraffic
    from pytest_nixos.machine.command import CommandResult
    from pytest_nixos.machine.faults.disks import WriteCache
    from pytest_nixos.machine.faults.faults import Faults, Hog
    from pytest_nixos.machine.survey import Survey, View
    from pytest_nixos.machine.user_session import UserSession
    from pytest_nixos.nix.config.declared import Firewall, OllamaSettings, PortRange, Zram
    from pytest_nixos.nix.config.host_facts import HostConfig
    from pytest_nixos.nix.config.secrets import Secret
    from pytest_nixos.nix.config.unit import Unit, parse_boolean
    from pytest_nixos.nix.dev_shells.shell import DevShell, ShellVisit
    from pytest_nixos.nix.evaluate import NixAnswer
    from pytest_nixos.nix.flake import Flake, FlakeHost
    from pytest_nixos.observe.base import Probe
    from pytest_nixos.observe.store import Observations
    from pytest_nixos.plugin.not_applicable import not_applicable
    from pytest_nixos.standards.control.model import Control
    from pytest_nixos.standards.judging.remedy import sysctl_module
    from pytest_nixos.test_secrets.archive import TestSecrets

__all__ = [
    "Announced",
    "BootError",
    "BootsFrom",
    "BuildError",
    "CatalogueError",
    "Cluster",
    "ClusterTunnel",
    "CommandResult",
    "CommandTimeout",
    "Control",
    "Deadline",
    "Delta",
    "DevShell",
    "Difference",
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
    "LoginRefused",
    "LostWrites",
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
    "Secret",
    "Severity",
    "ShellVisit",
    "Specialisation",
    "StorePath",
    "Survey",
    "SwitchEnd",
    "SwitchOutcome",
    "TestSecrets",
    "TransportError",
    "TunnelTraffic",
    "Unit",
    "UnitChanges",
    "UpgradeOutcome",
    "UserSession",
    "Verb",
    "View",
    "WriteCache",
    "Zram",
    "__version__",
    "against_fresh_boot",
    "not_applicable",
    "observe",
    "parse_boolean",
    "poll",
    "sysctl_module",
]

_HOME = {
    "BootError": "errors",
    "BuildError": "errors",
    "CatalogueError": "errors",
    "CommandTimeout": "errors",
    "EvalError": "errors",
    "FaultError": "errors",
    "FlakeError": "errors",
    "GenerationError": "errors",
    "LoginRefused": "errors",
    "MachineError": "errors",
    "NixosError": "errors",
    "TransportError": "errors",
    "DevShell": "nix.dev_shells.shell",
    "ShellVisit": "nix.dev_shells.shell",
    "Cluster": "machine.cluster.cluster",
    "ClusterTunnel": "machine.cluster.tunnel",
    "TunnelTraffic": "machine.cluster.tunnel",
    "Flake": "nix.flake",
    "FlakeHost": "nix.flake",
    "NixAnswer": "nix.evaluate",
    "Deadline": "local.timing",
    "poll": "local.timing",
    "Announced": "generations",
    "Delta": "generations",
    "Difference": "generations",
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
    "UpgradeOutcome": "generations.upgrade_outcome",
    "UserSession": "machine.user_session",
    "Verb": "generations",
    "against_fresh_boot": "generations",
    "BootsFrom": "machine.capabilities",
    "Faults": "machine.faults.faults",
    "Hog": "machine.faults.faults",
    "LostWrites": "machine.capabilities",
    "WriteCache": "machine.faults.disks",
    "Firewall": "nix.config.declared",
    "HostConfig": "nix.config.host_facts",
    "OllamaSettings": "nix.config.declared",
    "PortRange": "nix.config.declared",
    "Unit": "nix.config.unit",
    "Zram": "nix.config.declared",
    "CommandResult": "machine.command",
    "Machine": "machine.base",
    "PortState": "machine.capabilities",
    "Survey": "machine.survey",
    "View": "machine.survey",
    "Evidence": "findings",
    "Finding": "findings",
    "Outcome": "findings",
    "Severity": "findings",
    "Observations": "observe.store",
    "Probe": "observe.base",
    "Control": "standards.control.model",
    "Secret": "nix.config.secrets",
    "TestSecrets": "test_secrets.archive",
    "not_applicable": "plugin.not_applicable",
    "parse_boolean": "nix.config.unit",
    "sysctl_module": "standards.judging.remedy",
}


def __getattr__(name: str) -> object:
    # Names load when they are first used: importing the plugin must not slow down other pytest
    # runs.
    if name == "__version__":
        return _version()
    if name == "observe":
        return importlib.import_module(f"{__name__}.observe")
    from pytest_nixos.late import late_names

    return late_names(__name__, _HOME)(name)


@cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pytest-nixos")
    except PackageNotFoundError:  # a source tree on sys.path, not installed
        return "0+unknown"
