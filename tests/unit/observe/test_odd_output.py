"""No parser raises, whatever a guest prints: truncated, doubled, garbled, or binary output."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from pytest_nixos.errors import TransportError
from pytest_nixos.observe.accounts.account import ACCOUNT_FACTS
from pytest_nixos.observe.accounts.doas import doas_rights
from pytest_nixos.observe.accounts.polkit import polkit_answers
from pytest_nixos.observe.audit import AUDIT_FACTS
from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.clock import CLOCK_FACTS
from pytest_nixos.observe.fact import Fact
from pytest_nixos.observe.filesystems.file import files, programs
from pytest_nixos.observe.filesystems.mount import filesystem_table, mounts
from pytest_nixos.observe.filesystems.scan import SCAN_FACTS
from pytest_nixos.observe.filesystems.storage import STORAGE_FACTS
from pytest_nixos.observe.filesystems.swap import swap
from pytest_nixos.observe.firewall.probe import FirewallState, firewall
from pytest_nixos.observe.generation import GENERATION_FACTS, generations
from pytest_nixos.observe.kernel import (
    PROCESSOR_FACTS,
    kernel_parameters,
    modules,
    sysctl_tree,
    sysctls,
)
from pytest_nixos.observe.network.http import http
from pytest_nixos.observe.network.socket import addresses, sockets
from pytest_nixos.observe.network.sshd import SSHD_FACTS
from pytest_nixos.observe.nix import NIX_FACTS
from pytest_nixos.observe.podman import PODMAN_FACTS
from pytest_nixos.observe.systemd.activation import boot_activation
from pytest_nixos.observe.systemd.boot_time import boot_time
from pytest_nixos.observe.systemd.journal import JOURNAL_FACTS, journal, recent_journal
from pytest_nixos.observe.systemd.process import ProcessFacts, process_facts
from pytest_nixos.observe.systemd.unit import (
    exposure,
    failed_units,
    system_state,
    unit_files,
    units,
)
from pytest_nixos.observe.systemd.unit_event import unit_history
from pytest_nixos.observe.systemd.unit_file import verify_units
from pytest_nixos.observe.systemd.user_unit import user_units
from tests.unit.observe.here import ask

RECORDED = Path(__file__).parents[1] / "recorded"
PROBES: list[Probe[object]] = [
    *(exposure(["a"]), firewall(), generations(), http(["http://a/"]), mounts()),
    *(process_facts(["wanted", "plain"]), sockets(owners=True), swap(), sysctls(["a.b"])),
    *(
        sysctl_tree(),
        failed_units(),
        journal("a"),
        doas_rights(),
        files(["a"]),
        addresses(),
        kernel_parameters(),
        modules(["a"]),
        polkit_answers(),
        programs(["a"]),
        recent_journal(5),
        system_state(),
        unit_files(),
        units(["a"]),
        boot_activation(),
        boot_time(),
        filesystem_table(),
        unit_history(),
        user_units(),
        verify_units(["a.service"]),
    ),
]
TITLES = [
    "nft",
    "iptables",
    "links",
    "zram zram0",
    "status 1",
    "unit a b",
    "owners",
    "cgroups",
    "passwd",
    "shadow",
    "group",
]


def odd_outputs(seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    for path in sorted(RECORDED.iterdir()):
        text = path.read_bytes()
        yield text[: chance.randrange(len(text))]
        garbled = bytearray(text)
        for _ in range(40):
            garbled[chance.randrange(len(garbled))] = chance.randrange(256)
        yield bytes(garbled)
        lines = text.split(b"\n")
        chance.shuffle(lines)
        yield b"\n".join(lines)
        fields = [b" ".join(chance.sample(f, len(f))) for f in (line.split(b" ") for line in lines)]
        yield b"\n".join(fields)
        # More digits than Python turns into a number, and digits that are none in C.
        yield re.sub(rb"[0-9]+", b"9" * 5000, text[:4000])
        yield re.sub(rb"[0-9]+", "\u0663\u00b2".encode(), text)
    for deep in (b"[" * 100_000, b'{"a":' * 100_000):
        yield deep
        yield b"=nft\n" + deep + b"\n=nft-status 0\n=addresses\n" + deep
        yield b"=times\n=events\n" + deep
    for title in TITLES:
        yield f"={title}\n".encode() + chance.randbytes(300)
        yield f"={title}\n={title}\n1 2 3 4 5 6 7 8 9 10 11\n-\n: :\n\t\t\n".encode()
    yield b""
    yield b'=nft\n{"nftables": [{"rule": null}, 3, {"chain": {}}, {"set": []}]}\n=nft-status 0\n'
    yield b"=nft\n[]\n=nft-status 0\n"


def properties(value: object) -> None:
    """Ask an observation all that it answers without arguments."""
    for name in dir(type(value)):
        if isinstance(getattr(type(value), name), property):
            getattr(value, name)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_no_parser_raises(probe: Probe[object]) -> None:
    for text in odd_outputs(seed=7):
        found = probe.parse(ProbeOutput(stdout=text, exit_status=1))
        if isinstance(found, FirewallState):
            properties(found.ruleset)
            found.ruleset.open_ports("tcp")
            found.ruleset.reach(family="ip6").openings()
        elif isinstance(found, dict):
            for value in found.values():
                if isinstance(value, ProcessFacts):
                    properties(value)
        else:
            properties(found)


FACTS: dict[str, Mapping[str, Fact]] = {
    "account": ACCOUNT_FACTS,
    "audit": AUDIT_FACTS,
    "clock": CLOCK_FACTS,
    "generation": GENERATION_FACTS,
    "journal": JOURNAL_FACTS,
    "nix": NIX_FACTS,
    "podman": PODMAN_FACTS,
    "processor": PROCESSOR_FACTS,
    "scan": SCAN_FACTS,
    "sshd": SSHD_FACTS,
    "storage": STORAGE_FACTS,
}


@pytest.mark.parametrize("facts", FACTS.values(), ids=FACTS)
def test_no_fact_raises(facts: Mapping[str, Fact]) -> None:
    nines = "9" * 5000
    odd = [
        f"{nines}% /\n",
        f"/dev/a={nines}|{nines}|1|1|{nines}\n",
        f"PollIntervalMaxUSec={nines}s",
    ]
    for output in (*odd_outputs(seed=11), *(text.encode() for text in odd)):
        for fact in facts.values():
            fact.parse(output.decode(errors="replace"))


def test_a_parser_that_gives_up_is_told_and_judges_nothing() -> None:
    def parse(_: ProbeOutput) -> int:
        return int("x")

    with pytest.raises(TransportError, match="probe odd: what the guest printed cannot be read"):
        ask(Probe(name="odd", script="true", parse=parse))


def test_every_probe_has_a_name_of_its_own() -> None:
    names = [probe.name for probe in PROBES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("factory", [firewall, generations, swap, sockets, mounts])
def test_a_probe_can_be_renamed(factory: Callable[..., Probe[object]]) -> None:
    assert factory(name="before").name == "before"
