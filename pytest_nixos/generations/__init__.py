"""The life of a host: its generations, what changes them, and what each change did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_nixos.late import late_names

if TYPE_CHECKING:  # the same names as below, for type checkers
    from pytest_nixos.generations.announced import Announced
    from pytest_nixos.generations.bridge import StoreBridge
    from pytest_nixos.generations.generations import Generations
    from pytest_nixos.generations.links import Generation, Links
    from pytest_nixos.generations.outcome import PowerOutcome, SwitchOutcome
    from pytest_nixos.generations.sameness import Difference, against_fresh_boot
    from pytest_nixos.generations.sources import (
        Delta,
        OtherFlake,
        OtherHost,
        Source,
        Specialisation,
        StorePath,
    )
    from pytest_nixos.generations.units import UnitChanges
    from pytest_nixos.generations.verb import SwitchEnd, Verb

__all__ = [
    "Announced",
    "Delta",
    "Difference",
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
    "against_fresh_boot",
]

_HOME = {
    "Announced": "announced",
    "Delta": "sources",
    "Difference": "sameness",
    "Generation": "links",
    "Generations": "generations",
    "Links": "links",
    "OtherFlake": "sources",
    "OtherHost": "sources",
    "PowerOutcome": "outcome",
    "Source": "sources",
    "Specialisation": "sources",
    "StoreBridge": "bridge",
    "StorePath": "sources",
    "SwitchEnd": "verb",
    "SwitchOutcome": "outcome",
    "UnitChanges": "units",
    "Verb": "verb",
    "against_fresh_boot": "sameness",
}

# Names load when they are first used: most runs change no generation.
__getattr__ = late_names(__name__, _HOME)
