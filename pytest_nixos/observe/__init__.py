"""Observations: facts read from a running machine, many in one round trip.

A probe is a read-only bash fragment and its parser, one noun a file. What checks need is public here::

    failed = nixos_observations.of(observe.failed_units())
"""

from pytest_nixos.observe.account import Account, Accounts, PasswordState, local_users
from pytest_nixos.observe.base import Probe, ProbeOutput, collect, observe
from pytest_nixos.observe.boot_time import BootTime, UnitTime, boot_time
from pytest_nixos.observe.exposure import Exposure, exposure
from pytest_nixos.observe.file import FileState, FileType, files
from pytest_nixos.observe.filtering import Decision
from pytest_nixos.observe.firewall import FirewallState, firewall
from pytest_nixos.observe.generation import GenerationState, generations
from pytest_nixos.observe.given_up import has_failed
from pytest_nixos.observe.http import HttpAnswer, HttpRequest, http
from pytest_nixos.observe.journal import JournalEntry, recent_journal
from pytest_nixos.observe.mount import Mount, MountTable, mounts
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

__all__ = [
    "Account",
    "Accounts",
    "BootTime",
    "Decision",
    "Exposure",
    "FileState",
    "FileType",
    "FirewallState",
    "GenerationState",
    "HttpAnswer",
    "HttpRequest",
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
    "UnitState",
    "UnitTime",
    "ZramDevice",
    "boot_time",
    "collect",
    "exposure",
    "failed_units",
    "files",
    "firewall",
    "generations",
    "has_failed",
    "http",
    "journal",
    "local_users",
    "mounts",
    "observe",
    "process_facts",
    "recent_journal",
    "same_sysctl",
    "sockets",
    "swap",
    "sysctls",
    "system",
    "system_state",
    "units",
]
