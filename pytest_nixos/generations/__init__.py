"""The life of a host: its generations, what changes them, and what each change did."""

from __future__ import annotations

from pytest_nixos.generations.announced import Announced
from pytest_nixos.generations.bridge import StoreBridge
from pytest_nixos.generations.generations import Generations
from pytest_nixos.generations.links import Generation, Links, Verb
from pytest_nixos.generations.outcome import PowerOutcome, SwitchEnd, SwitchOutcome
from pytest_nixos.generations.sources import (
    Delta,
    OtherFlake,
    OtherHost,
    Source,
    Specialisation,
    StorePath,
)
from pytest_nixos.generations.units import UnitChanges

__all__ = [
    "Announced",
    "Delta",
    "Generation",
    "Generations",
    "Links",
    "OtherFlake",
    "OtherHost",
    "PowerOutcome",
    "Source",
    "Specialisation",
    "StoreBridge",
    "StorePath",
    "SwitchEnd",
    "SwitchOutcome",
    "UnitChanges",
    "Verb",
]
