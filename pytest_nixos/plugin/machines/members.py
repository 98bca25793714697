"""The evaluation of a cluster's members, and what follows from all of them for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_nixos.backend_name import BackendName
from pytest_nixos.local.process import Runner
from pytest_nixos.machine.cluster.container_port import container_cards
from pytest_nixos.machine.cluster.owners import Owners, find_owners, member_addresses
from pytest_nixos.machine.cluster.pct_member import pct_card
from pytest_nixos.machine.cluster.plan import PlannedNetwork, plan_networks
from pytest_nixos.machine.container.kernel import has_wireguard
from pytest_nixos.machine.pct import Pct
from pytest_nixos.nix.command.refs import HostRef
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.tunnels import Address
from pytest_nixos.nix.flakes import Flakes
from pytest_nixos.nix.schedule import Evaluated, Question, evaluate_hosts
from pytest_nixos.nix.tunnel_flakes import TunnelFlakes
from pytest_nixos.plugin.evaluate import FURTHER_OPTIONS
from pytest_nixos.plugin.machines.tunnels import MakeSecrets, TunnelKeys, make_keys, notes
from pytest_nixos.test_secrets.archive import TestSecrets
from pytest_nixos.test_secrets.given import GivenSecret

__all__ = ["Members", "PlannedCluster", "no_wireguard"]

#: A VM with the host's own network cards, for Nix.
_MEMBER = "member"

Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCluster:
    """What is known of a cluster before anything is built.

    :param addresses: of each member's network cards.
    :param owners: who the peers of WireGuard are.
    :param keys: their test keys.
    """

    hosts: Mapping[str, HostConfig]
    networks: tuple[PlannedNetwork, ...]
    addresses: Mapping[str, frozenset[Address]]
    owners: Owners
    keys: TunnelKeys

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user has to know of its tunnels."""
        return tuple(dict.fromkeys(notes(self.owners, self.addresses)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """Hosts that are to be the members of one cluster.

    :param refs: by what the cluster calls them.
    :param kinds: VM or container, by name.
    :param pct: what Proxmox gives containers, by name.
    :param say: tells the user.
    """

    refs: Mapping[str, HostRef]
    kinds: Mapping[str, BackendName]
    pct: Mapping[str, Pct]
    say: Callable[[str], None]

    def planned(
        self,
        flakes: Flakes,
        make_secrets: Callable[[HostConfig, Sequence[GivenSecret]], TestSecrets] | None,
    ) -> PlannedCluster:
        """Evaluate the members and plan what is between them.

        :param make_secrets: makes a member's secrets, these plain files among them; ``None`` leaves
            the keys of tunnels as they are.
        :raises EvalError: if one does not evaluate.
        :raises MachineError: if their networks or their tunnels do not fit together.
        """
        hosts = self._evaluated(flakes, None)
        networks = plan_networks(hosts)
        addresses = member_addresses(hosts, networks)
        owners = find_owners(hosts, addresses)
        keys = TunnelKeys(secrets={}, tables={})
        if make_secrets is not None:
            make: MakeSecrets = lambda name, more: make_secrets(hosts[name], more)  # noqa: E731 - its type is told
            keys = make_keys(owners, networks, hosts, make)
        if keys.tables:
            # Once more, with the keys that follow from all of them.
            tables = {self.refs[name]: table for name, table in keys.tables.items()}
            hosts |= self._evaluated(flakes, tables)
        return PlannedCluster(
            hosts=hosts, networks=networks, addresses=addresses, owners=owners, keys=keys
        )

    def _evaluated(
        self, flakes: Flakes, tables: Mapping[HostRef, Table] | None
    ) -> dict[str, HostConfig]:
        """Evaluate the members, or those that have tables, as many at once as there is room for."""
        names = {ref: name for name, ref in self.refs.items()}
        count = Counter(ref.attr for ref in names)

        def tell(ref: HostRef) -> None:
            why = "" if tables is None else ", with keys for its tunnels"
            self.say(f"{names[ref]}: evaluating it as a machine of a cluster{why}")

        def with_keys(known: Flakes) -> Flakes:
            return known if tables is None else TunnelFlakes(known, tables)

        found: dict[HostRef, Evaluated] = {}
        for kind in dict.fromkeys(self.kinds.values()):
            question = Question(
                backend=_MEMBER if kind is BackendName.VM else kind, option_paths=FURTHER_OPTIONS
            )
            refs = [
                ref
                for name, ref in self.refs.items()
                if self.kinds[name] is kind and (tables is None or ref in tables)
            ]
            alone = [ref for ref in refs if count[ref.attr] == 1]
            found |= evaluate_hosts(with_keys(flakes), alone, question, say=tell)
            for ref in refs:
                if ref not in found:
                    # Hardware addresses are made of the host's name, which another one has too.
                    own = with_keys(flakes.salted(names[ref]))
                    found |= evaluate_hosts(own, [ref], question, say=tell)
        return {
            name: self._as_member(name, found[ref])
            for name, ref in self.refs.items()
            if ref in found
        }

    def _as_member(self, name: str, evaluated: Evaluated) -> HostConfig:
        if evaluated.failure is not None:
            raise evaluated.failure
        host = evaluated.config
        assert host is not None
        host = host if self.kinds[name] is BackendName.VM else container_cards(host)
        return pct_card(host, self.pct[name]) if name in self.pct else host


def no_wireguard(owners: Owners, kinds: Mapping[str, BackendName], runner: Runner) -> str:
    """Return why no tunnel between members can come up, ``""`` where one can: containers have this
    machine's kernel.
    """
    inside = {link.end.host for link in owners.links}
    if not any(kinds[name] is BackendName.CONTAINER for name in inside) or has_wireguard(runner):
        return ""
    return "this machine's kernel, which containers share, has no WireGuard"
