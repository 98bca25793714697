"""Observations: facts read from a running machine, many in one round trip.

A probe is a read-only bash fragment and its parser, one noun a file. What checks need is public
here::

    failed = nixos_observations.of(observe.failed_units())
"""

from pytest_nixos.observe.activation import (
    ActivationFailure,
    BootActivation,
    boot_activation,
    parse_activation,
)
from pytest_nixos.observe.base import Probe, ProbeOutput, collect, observe
from pytest_nixos.observe.boot_time import BootTime, UnitTime, boot_time
from pytest_nixos.observe.down_unit import DownUnit, down_units, missing_secrets, secrets_among
from pytest_nixos.observe.fact import Fact, Lacking, fact_probe
from pytest_nixos.observe.file import FileState, files, programs
from pytest_nixos.observe.firewall import (
    STRANGER,
    Cast,
    Decision,
    FirewallState,
    Opening,
    PortJudgement,
    firewall,
)
from pytest_nixos.observe.generation import GenerationState, generations
from pytest_nixos.observe.home import Home, homes
from pytest_nixos.observe.http import HttpAnswer, HttpRequest, http
from pytest_nixos.observe.internet import InternetNeed, NeedsOfMachine, mount_unit
from pytest_nixos.observe.journal import JournalEntry, journal, recent_journal
from pytest_nixos.observe.kernel import applied_sysctls, same_sysctl, sysctls
from pytest_nixos.observe.mount import FileSystemEntry, Mount, MountTable, filesystem_table, mounts
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
from pytest_nixos.observe.swap import SwapState, ZramDevice, swap
from pytest_nixos.observe.unit import (
    Exposure,
    UnitState,
    exposure,
    failed_units,
    system_state,
    units,
)
from pytest_nixos.observe.unit_event import UnitEvent, UnitEventKind, UnitHistory, unit_history
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
]
