"""Observations: facts read from a running machine, many in one round trip.

A probe is a read-only bash fragment and its parser, one noun a file. What checks need is public here::

    failed = nixos_observations.of(observe.failed_units())
"""

from pytest_nixos.observe.base import Probe, ProbeOutput, collect
from pytest_nixos.observe.filtering import Decision
from pytest_nixos.observe.firewall import FirewallState, firewall
from pytest_nixos.observe.generation import GenerationState, generations
from pytest_nixos.observe.http import HttpAnswer, HttpRequest, http
from pytest_nixos.observe.socket import Protocol, Sockets, sockets
from pytest_nixos.observe.swap import SwapState, ZramDevice, swap
from pytest_nixos.observe.sysctl import same_sysctl, sysctls
from pytest_nixos.observe.unit import UnitState, failed_units, journal, system_state, units

__all__ = [
    "Decision",
    "FirewallState",
    "GenerationState",
    "HttpAnswer",
    "HttpRequest",
    "Probe",
    "ProbeOutput",
    "Protocol",
    "Sockets",
    "SwapState",
    "UnitState",
    "ZramDevice",
    "collect",
    "failed_units",
    "firewall",
    "generations",
    "http",
    "journal",
    "same_sysctl",
    "sockets",
    "swap",
    "sysctls",
    "system_state",
    "units",
]
