"""Observations: facts read from a running machine, many in one round trip.

A probe is a read-only bash fragment and its parser, one noun a file. What checks need is public here::

    failed = nixos_observations.of(observe.failed_units())
"""

from pytest_nixos.observe.account import Account, Accounts, PasswordState, local_users
from pytest_nixos.observe.activation import (
    ActivationFailure,
    BootActivation,
    boot_activation,
    parse_activation,
)
from pytest_nixos.observe.base import Probe, ProbeOutput, collect, observe
from pytest_nixos.observe.boot_time import BootTime, UnitTime, boot_time
from pytest_nixos.observe.exposure import Exposure, exposure
from pytest_nixos.observe.file import FileState, FileType, files
from pytest_nixos.observe.filtering import Decision
from pytest_nixos.observe.firewall import FirewallState, firewall
from pytest_nixos.observe.generation import GenerationState, generations
from pytest_nixos.observe.http import HttpAnswer, HttpRequest, http
from pytest_nixos.observe.journal import JournalEntry, recent_journal
from pytest_nixos.observe.mount import FileSystemEntry, Mount, MountTable, filesystem_table, mounts
from pytest_nixos.observe.sandbox import (
    ProcessFacts,
    ProtectHome,
    ProtectSystem,
    SeccompMode,
    process_facts,
)
from pytest_nixos.observe.socket import Protocol, Sockets, sockets
from pytest_nixos.observe.swap import SwapState, ZramDevice, swap
from pytest_nixos.observe.sysctl import same_sysctl, sysctls
from pytest_nixos.observe.system import SystemState, system
from pytest_nixos.observe.unit import UnitState, failed_units, journal, system_state, units
from pytest_nixos.observe.unit_event import UnitEvent, UnitEventKind, UnitHistory, unit_history
from pytest_nixos.observe.unit_file import (
    BrokenCycle,
    IgnoredDirective,
    UnitFileReport,
    UnitRemark,
    verify_units,
)
from pytest_nixos.observe.user_unit import UserUnits, user_units

__all__ = [
    "Account",
    "Accounts",
    "ActivationFailure",
    "BootActivation",
    "BootTime",
    "BrokenCycle",
    "Decision",
    "Exposure",
    "FileState",
    "FileSystemEntry",
    "FileType",
    "FirewallState",
    "GenerationState",
    "HttpAnswer",
    "HttpRequest",
    "IgnoredDirective",
    "JournalEntry",
    "Mount",
    "MountTable",
    "PasswordState",
    "Probe",
    "ProbeOutput",
    "ProcessFacts",
    "ProtectHome",
    "ProtectSystem",
    "Protocol",
    "SeccompMode",
    "Sockets",
    "SwapState",
    "SystemState",
    "UnitEvent",
    "UnitEventKind",
    "UnitFileReport",
    "UnitHistory",
    "UnitRemark",
    "UnitState",
    "UnitTime",
    "UserUnits",
    "ZramDevice",
    "boot_activation",
    "boot_time",
    "collect",
    "exposure",
    "failed_units",
    "files",
    "filesystem_table",
    "firewall",
    "generations",
    "http",
    "journal",
    "local_users",
    "mounts",
    "observe",
    "parse_activation",
    "process_facts",
    "recent_journal",
    "same_sysctl",
    "sockets",
    "swap",
    "sysctls",
    "system",
    "system_state",
    "unit_history",
    "units",
    "user_units",
    "verify_units",
]
