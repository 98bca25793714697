"""Kinds whose observations are facts by name: a fact that is added to its table can be asked for
at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.accounts.account import ACCOUNT_FACTS
from pytest_nixos.observe.base import Probe
from pytest_nixos.observe.clock import CLOCK_FACTS
from pytest_nixos.observe.fact import Fact, Lacking, fact_probe
from pytest_nixos.observe.filesystems.scan import SCAN_FACTS
from pytest_nixos.observe.filesystems.storage import STORAGE_FACTS
from pytest_nixos.observe.generation import GENERATION_FACTS
from pytest_nixos.observe.kernel import PROCESSOR_FACTS
from pytest_nixos.observe.nix import NIX_FACTS
from pytest_nixos.observe.podman import PODMAN_FACTS
from pytest_nixos.observe.systemd.journal import JOURNAL_FACTS
from pytest_nixos.standards.control.declared_value import select
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.kinds.kind import TEXTS, Kind, Parameter, Parameters

__all__ = ["KINDS", "chosen_fact", "fact_kind"]

Json = Any


def fact_kind(name: str, reads: str, facts: Mapping[str, Fact]) -> Kind:
    """Make a kind of a table of facts: an entry names the `fact` and may `select` inside its
    value.
    """

    def probe(wanted: Sequence[Parameters], _: HostConfig) -> Probe[Any]:
        return fact_probe(name, facts, [str(p["fact"]) for p in wanted])

    def find(values: Mapping[str, Json], parameters: Parameters, _: HostConfig) -> Sight:
        return chosen_fact(values, str(parameters["fact"]), parameters.get("select", ()))

    return Kind(
        name=name,
        reads=reads,
        probe=probe,
        find=find,
        parameters={"fact": Parameter(required=True, choices=tuple(facts)), "select": TEXTS},
    )


def chosen_fact(values: Mapping[str, Json], fact: str, keys: Sequence[str]) -> Sight:
    """Find one fact's value, or a member of it, in what a probe of facts parsed."""
    if fact not in values:
        return Unseen(f"the machine gave no answer about {fact}")
    value = values[fact]
    if isinstance(value, Lacking):
        return Unseen(value.reason, applicable=False)
    return Seen(select(value, tuple(keys)))


KINDS = (
    fact_kind("account", "users, groups and passwords, never a hash", ACCOUNT_FACTS),
    fact_kind("clock", "the clock and its time service", CLOCK_FACTS),
    fact_kind(
        "generation", "what is booted, current, kept and installed by hand", GENERATION_FACTS
    ),
    fact_kind("journal", "journald's settings and the journal of this boot", JOURNAL_FACTS),
    fact_kind("nix", "the settings of Nix", NIX_FACTS),
    fact_kind("podman", "running OCI containers", PODMAN_FACTS),
    fact_kind("processor", "the processor", PROCESSOR_FACTS),
    fact_kind("scan", "the mutable file systems", SCAN_FACTS),
    fact_kind("storage", "disks, swap and encryption", STORAGE_FACTS),
)
