"""Observations: facts read from a running machine, many in one round trip.

A probe is a read-only bash fragment and its parser, one noun a file. What checks need is public
here::

    failed = nixos_observations.of(observe.failed_units())
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_nixos.late import late_names

# These are called as their modules are, and a module that is imported later would take the name.
from pytest_nixos.observe.boot_time import boot_time
from pytest_nixos.observe.firewall.probe import firewall
from pytest_nixos.observe.http import http
from pytest_nixos.observe.journal import journal
from pytest_nixos.observe.swap import swap

if TYPE_CHECKING:  # the same names as below, for type checkers
    from pytest_nixos.observe.activation import (
        ActivationFailure,
        BootActivation,
        boot_activation,
        parse_activation,
    )
    from pytest_nixos.observe.base import Probe, ProbeOutput, collect, observe
    from pytest_nixos.observe.boot_time import BootTime, UnitTime
    from pytest_nixos.observe.declared_unit import (
        SANDBOXING,
        declared_files,
        declared_states,
        declared_templates,
        declared_units,
    )
    from pytest_nixos.observe.down_unit import DownUnit, down_units, missing_secrets, secrets_among
    from pytest_nixos.observe.fact import Fact, Lacking, fact_probe
    from pytest_nixos.observe.failed_unit import UnitFailure
    from pytest_nixos.observe.file import FileState, files, programs
    from pytest_nixos.observe.firewall.cast import Cast
    from pytest_nixos.observe.firewall.opening import Decision, Opening, PortJudgement
    from pytest_nixos.observe.firewall.probe import FirewallState
    from pytest_nixos.observe.firewall.ruleset import STRANGER
    from pytest_nixos.observe.generation import GenerationState, generations
    from pytest_nixos.observe.home import Home, homes
    from pytest_nixos.observe.http import HttpAnswer, HttpRequest
    from pytest_nixos.observe.internet import InternetNeed, NeedsOfMachine, mount_unit
    from pytest_nixos.observe.journal import JournalEntry, recent_journal
    from pytest_nixos.observe.kernel import applied_sysctls, same_sysctl, sysctls
    from pytest_nixos.observe.mount import (
        FileSystemEntry,
        Mount,
        MountTable,
        filesystem_table,
        mounts,
    )
    from pytest_nixos.observe.network import InetSocket, Protocol, Sockets, sockets
    from pytest_nixos.observe.process import (
        ProcessFacts,
        ProtectHome,
        ProtectSystem,
        SeccompMode,
        process_facts,
    )
    from pytest_nixos.observe.refused_line import (
        RefusedLine,
        RefusedLines,
        refused_lines,
        refused_on_console,
    )
    from pytest_nixos.observe.swap import SwapState, ZramDevice
    from pytest_nixos.observe.unit import (
        Exposure,
        UnitState,
        exposure,
        failed_units,
        system_state,
        units,
    )
    from pytest_nixos.observe.unit_event import UnitEvent, UnitEventKind, UnitHistory, unit_history
    from pytest_nixos.observe.unit_failure import UnitFailures, why_failed
    from pytest_nixos.observe.unit_file import (
        BrokenCycle,
        IgnoredDirective,
        UnitFileReport,
        UnitRemark,
        verify_units,
    )
    from pytest_nixos.observe.user_unit import UserUnits, user_units
    from pytest_nixos.observe.waiting import is_hopeless, poll_service

__all__ = [
    "SANDBOXING",
    "STRANGER",
    "ActivationFailure",
    "BootActivation",
    "BootTime",
    "BrokenCycle",
    "Cast",
    "Decision",
    "DownUnit",
    "Exposure",
    "Fact",
    "FileState",
    "FileSystemEntry",
    "FirewallState",
    "GenerationState",
    "Home",
    "HttpAnswer",
    "HttpRequest",
    "IgnoredDirective",
    "InetSocket",
    "InternetNeed",
    "JournalEntry",
    "Lacking",
    "Mount",
    "MountTable",
    "NeedsOfMachine",
    "Opening",
    "PortJudgement",
    "Probe",
    "ProbeOutput",
    "ProcessFacts",
    "ProtectHome",
    "ProtectSystem",
    "Protocol",
    "RefusedLine",
    "RefusedLines",
    "SeccompMode",
    "Sockets",
    "SwapState",
    "UnitEvent",
    "UnitEventKind",
    "UnitFailure",
    "UnitFailures",
    "UnitFileReport",
    "UnitHistory",
    "UnitRemark",
    "UnitState",
    "UnitTime",
    "UserUnits",
    "ZramDevice",
    "applied_sysctls",
    "boot_activation",
    "boot_time",
    "collect",
    "declared_files",
    "declared_states",
    "declared_templates",
    "declared_units",
    "down_units",
    "exposure",
    "fact_probe",
    "failed_units",
    "files",
    "filesystem_table",
    "firewall",
    "generations",
    "homes",
    "http",
    "is_hopeless",
    "journal",
    "missing_secrets",
    "mount_unit",
    "mounts",
    "observe",
    "parse_activation",
    "poll_service",
    "process_facts",
    "programs",
    "recent_journal",
    "refused_lines",
    "refused_on_console",
    "same_sysctl",
    "secrets_among",
    "sockets",
    "swap",
    "sysctls",
    "system_state",
    "unit_history",
    "units",
    "user_units",
    "verify_units",
    "why_failed",
]

_HOME = {
    "ActivationFailure": "activation",
    "BootActivation": "activation",
    "BootTime": "boot_time",
    "BrokenCycle": "unit_file",
    "Cast": "firewall.cast",
    "Decision": "firewall.opening",
    "DownUnit": "down_unit",
    "Exposure": "unit",
    "Fact": "fact",
    "FileState": "file",
    "FileSystemEntry": "mount",
    "FirewallState": "firewall.probe",
    "GenerationState": "generation",
    "Home": "home",
    "HttpAnswer": "http",
    "HttpRequest": "http",
    "IgnoredDirective": "unit_file",
    "InetSocket": "network",
    "InternetNeed": "internet",
    "JournalEntry": "journal",
    "Lacking": "fact",
    "Mount": "mount",
    "MountTable": "mount",
    "NeedsOfMachine": "internet",
    "Opening": "firewall.opening",
    "PortJudgement": "firewall.opening",
    "Probe": "base",
    "ProbeOutput": "base",
    "ProcessFacts": "process",
    "ProtectHome": "process",
    "ProtectSystem": "process",
    "Protocol": "network",
    "RefusedLine": "refused_line",
    "RefusedLines": "refused_line",
    "SANDBOXING": "declared_unit",
    "STRANGER": "firewall.ruleset",
    "SeccompMode": "process",
    "Sockets": "network",
    "SwapState": "swap",
    "UnitEvent": "unit_event",
    "UnitEventKind": "unit_event",
    "UnitFailure": "failed_unit",
    "UnitFailures": "unit_failure",
    "UnitFileReport": "unit_file",
    "UnitHistory": "unit_event",
    "UnitRemark": "unit_file",
    "UnitState": "unit",
    "UnitTime": "boot_time",
    "UserUnits": "user_unit",
    "ZramDevice": "swap",
    "applied_sysctls": "kernel",
    "boot_activation": "activation",
    "collect": "base",
    "declared_files": "declared_unit",
    "declared_states": "declared_unit",
    "declared_templates": "declared_unit",
    "declared_units": "declared_unit",
    "down_units": "down_unit",
    "exposure": "unit",
    "fact_probe": "fact",
    "failed_units": "unit",
    "files": "file",
    "filesystem_table": "mount",
    "generations": "generation",
    "homes": "home",
    "is_hopeless": "waiting",
    "missing_secrets": "down_unit",
    "mount_unit": "internet",
    "mounts": "mount",
    "observe": "base",
    "parse_activation": "activation",
    "poll_service": "waiting",
    "process_facts": "process",
    "programs": "file",
    "recent_journal": "journal",
    "refused_lines": "refused_line",
    "refused_on_console": "refused_line",
    "same_sysctl": "kernel",
    "secrets_among": "down_unit",
    "sockets": "network",
    "sysctls": "kernel",
    "system_state": "unit",
    "unit_history": "unit_event",
    "units": "unit",
    "user_units": "user_unit",
    "verify_units": "unit_file",
    "why_failed": "unit_failure",
}

# Names load when they are first used: a run looks at little of all this.
__getattr__ = late_names(__name__, _HOME)
