"""Observations: facts read from a running machine, many in one round trip.

A probe is a read-only bash fragment and its parser, one noun a file. What checks need is public
here::

    failed = nixos_observations.of(observe.failed_units())
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_nixos.late import late_names

# It is called as its room is, and a room that is imported later would take the name.
from pytest_nixos.observe.firewall.probe import firewall

if TYPE_CHECKING:  # the same names as below, for type checkers
    from pytest_nixos.observe.base import Probe, ProbeOutput, collect, observe
    from pytest_nixos.observe.cron_line import cron_accounts
    from pytest_nixos.observe.fact import Fact, Lacking, fact_probe
    from pytest_nixos.observe.filesystems.file import FileState, files, programs
    from pytest_nixos.observe.filesystems.home import Home, homes
    from pytest_nixos.observe.filesystems.mount import (
        FileSystemEntry,
        Mount,
        MountTable,
        filesystem_table,
        mounts,
    )
    from pytest_nixos.observe.filesystems.swap import SwapState, ZramDevice, swap
    from pytest_nixos.observe.firewall.cast import Cast
    from pytest_nixos.observe.firewall.opening import Decision, Opening, PortJudgement
    from pytest_nixos.observe.firewall.probe import FirewallState
    from pytest_nixos.observe.firewall.ruleset import STRANGER
    from pytest_nixos.observe.generation import GenerationState, generations
    from pytest_nixos.observe.kernel import applied_sysctls, same_sysctl, sysctl_path, sysctls
    from pytest_nixos.observe.network.http import HttpAnswer, HttpRequest, http
    from pytest_nixos.observe.network.internet import InternetNeed, NeedsOfMachine, mount_unit
    from pytest_nixos.observe.network.socket import InetSocket, Protocol, Sockets, sockets
    from pytest_nixos.observe.sysctl_source import (
        SysctlGap,
        SysctlSources,
        sysctl_sources,
    )
    from pytest_nixos.observe.systemd.activation import (
        ActivationFailure,
        BootActivation,
        boot_activation,
        own_failures,
        parse_activation,
    )
    from pytest_nixos.observe.systemd.boot_time import BootTime, UnitTime, boot_time
    from pytest_nixos.observe.systemd.declared_unit import (
        SANDBOXING,
        declared_files,
        declared_states,
        declared_templates,
        declared_units,
    )
    from pytest_nixos.observe.systemd.down_unit import (
        DownUnit,
        down_units,
        missing_secrets,
        secrets_among,
    )
    from pytest_nixos.observe.systemd.failed_unit import UnitFailure
    from pytest_nixos.observe.systemd.journal import JournalEntry, journal, recent_journal
    from pytest_nixos.observe.systemd.process import (
        ProcessFacts,
        ProtectHome,
        ProtectSystem,
        SeccompMode,
        process_facts,
    )
    from pytest_nixos.observe.systemd.read_file import ReadFile, read_files
    from pytest_nixos.observe.systemd.refused_by_kernel import RefusedSysctl, refused_sysctls
    from pytest_nixos.observe.systemd.refused_line import (
        RefusedLine,
        RefusedLines,
        refused_lines,
        refused_on_console,
    )
    from pytest_nixos.observe.systemd.started_text import started_texts
    from pytest_nixos.observe.systemd.unit import (
        MANY_RESTARTS,
        Exposure,
        UnitState,
        exposure,
        failed_units,
        system_state,
        units,
    )
    from pytest_nixos.observe.systemd.unit_event import (
        UnitEvent,
        UnitEventKind,
        UnitHistory,
        unit_history,
    )
    from pytest_nixos.observe.systemd.unit_failure import UnitFailures, why_failed
    from pytest_nixos.observe.systemd.unit_file import (
        BrokenCycle,
        IgnoredDirective,
        UnitFileReport,
        UnitRemark,
        verify_units,
    )
    from pytest_nixos.observe.systemd.unmet_need import unmet_needs
    from pytest_nixos.observe.systemd.user_unit import UserUnits, user_units
    from pytest_nixos.observe.systemd.waiting import is_hopeless, poll_service

__all__ = [
    "MANY_RESTARTS",
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
    "ReadFile",
    "RefusedLine",
    "RefusedLines",
    "RefusedSysctl",
    "SeccompMode",
    "Sockets",
    "SwapState",
    "SysctlGap",
    "SysctlSources",
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
    "cron_accounts",
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
    "own_failures",
    "parse_activation",
    "poll_service",
    "process_facts",
    "programs",
    "read_files",
    "recent_journal",
    "refused_lines",
    "refused_on_console",
    "refused_sysctls",
    "same_sysctl",
    "secrets_among",
    "sockets",
    "started_texts",
    "swap",
    "sysctl_path",
    "sysctl_sources",
    "sysctls",
    "system_state",
    "unit_history",
    "units",
    "unmet_needs",
    "user_units",
    "verify_units",
    "why_failed",
]

_HOME = {
    "MANY_RESTARTS": "systemd.unit",
    "ActivationFailure": "systemd.activation",
    "BootActivation": "systemd.activation",
    "BootTime": "systemd.boot_time",
    "BrokenCycle": "systemd.unit_file",
    "Cast": "firewall.cast",
    "Decision": "firewall.opening",
    "DownUnit": "systemd.down_unit",
    "Exposure": "systemd.unit",
    "Fact": "fact",
    "FileState": "filesystems.file",
    "FileSystemEntry": "filesystems.mount",
    "FirewallState": "firewall.probe",
    "GenerationState": "generation",
    "Home": "filesystems.home",
    "HttpAnswer": "network.http",
    "HttpRequest": "network.http",
    "IgnoredDirective": "systemd.unit_file",
    "InetSocket": "network.socket",
    "InternetNeed": "network.internet",
    "JournalEntry": "systemd.journal",
    "Lacking": "fact",
    "Mount": "filesystems.mount",
    "MountTable": "filesystems.mount",
    "NeedsOfMachine": "network.internet",
    "Opening": "firewall.opening",
    "PortJudgement": "firewall.opening",
    "Probe": "base",
    "ProbeOutput": "base",
    "ProcessFacts": "systemd.process",
    "ProtectHome": "systemd.process",
    "ProtectSystem": "systemd.process",
    "Protocol": "network.socket",
    "ReadFile": "systemd.read_file",
    "RefusedLine": "systemd.refused_line",
    "RefusedLines": "systemd.refused_line",
    "RefusedSysctl": "systemd.refused_by_kernel",
    "SANDBOXING": "systemd.declared_unit",
    "STRANGER": "firewall.ruleset",
    "SeccompMode": "systemd.process",
    "Sockets": "network.socket",
    "SwapState": "filesystems.swap",
    "SysctlGap": "sysctl_source",
    "SysctlSources": "sysctl_source",
    "UnitEvent": "systemd.unit_event",
    "UnitEventKind": "systemd.unit_event",
    "UnitFailure": "systemd.failed_unit",
    "UnitFailures": "systemd.unit_failure",
    "UnitFileReport": "systemd.unit_file",
    "UnitHistory": "systemd.unit_event",
    "UnitRemark": "systemd.unit_file",
    "UnitState": "systemd.unit",
    "UnitTime": "systemd.boot_time",
    "UserUnits": "systemd.user_unit",
    "ZramDevice": "filesystems.swap",
    "applied_sysctls": "kernel",
    "boot_activation": "systemd.activation",
    "boot_time": "systemd.boot_time",
    "collect": "base",
    "cron_accounts": "cron_line",
    "declared_files": "systemd.declared_unit",
    "declared_states": "systemd.declared_unit",
    "declared_templates": "systemd.declared_unit",
    "declared_units": "systemd.declared_unit",
    "down_units": "systemd.down_unit",
    "exposure": "systemd.unit",
    "fact_probe": "fact",
    "failed_units": "systemd.unit",
    "files": "filesystems.file",
    "filesystem_table": "filesystems.mount",
    "generations": "generation",
    "homes": "filesystems.home",
    "http": "network.http",
    "is_hopeless": "systemd.waiting",
    "own_failures": "systemd.activation",
    "journal": "systemd.journal",
    "missing_secrets": "systemd.down_unit",
    "mount_unit": "network.internet",
    "mounts": "filesystems.mount",
    "observe": "base",
    "parse_activation": "systemd.activation",
    "poll_service": "systemd.waiting",
    "process_facts": "systemd.process",
    "programs": "filesystems.file",
    "read_files": "systemd.read_file",
    "recent_journal": "systemd.journal",
    "refused_lines": "systemd.refused_line",
    "refused_on_console": "systemd.refused_line",
    "refused_sysctls": "systemd.refused_by_kernel",
    "same_sysctl": "kernel",
    "secrets_among": "systemd.down_unit",
    "sockets": "network.socket",
    "started_texts": "systemd.started_text",
    "swap": "filesystems.swap",
    "sysctl_path": "kernel",
    "sysctl_sources": "sysctl_source",
    "sysctls": "kernel",
    "system_state": "systemd.unit",
    "unit_history": "systemd.unit_event",
    "unmet_needs": "systemd.unmet_need",
    "units": "systemd.unit",
    "user_units": "systemd.user_unit",
    "verify_units": "systemd.unit_file",
    "why_failed": "systemd.unit_failure",
}

# Names load when they are first used: a run looks at little of all this.
__getattr__ = late_names(__name__, _HOME)
