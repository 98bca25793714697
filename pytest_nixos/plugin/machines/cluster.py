"""From the names of hosts to a running cluster: evaluate, plan the networks, build, start, and the
way back.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from msgspec.structs import replace

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import FlakeError, MachineError, SettingsError
from pytest_nixos.local.pace import Pacer
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.run_directory import run_directory
from pytest_nixos.local.timing import Recall
from pytest_nixos.machine.base import Backend, Machine, MachineSpec, NetworkCard
from pytest_nixos.machine.capabilities import Pluggable
from pytest_nixos.machine.cluster.cluster import Cluster
from pytest_nixos.machine.cluster.container_port import ContainerPorts
from pytest_nixos.machine.cluster.network import ClusterNetwork, cluster_network, port_name
from pytest_nixos.machine.cluster.pct_member import check_address
from pytest_nixos.machine.cluster.plan import Place, addresses_by_host
from pytest_nixos.machine.cluster.tunnel import tunnels_of
from pytest_nixos.machine.container.backend import ContainerBackend
from pytest_nixos.machine.memory_needs import plan_memory
from pytest_nixos.machine.pct import Pct
from pytest_nixos.machine.vm.argv import card_socket
from pytest_nixos.nix.command.refs import FlakeRef, HostRef, HostSelection
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.flakes import Flakes
from pytest_nixos.plugin.machines.launch import bundled_backend, door_of
from pytest_nixos.plugin.machines.members import Members, no_wireguard
from pytest_nixos.plugin.machines.secrets import archived, secrets_of
from pytest_nixos.plugin.progress import Progress
from pytest_nixos.plugin.settings.declared_options import NetworkUse, SnapshotUse
from pytest_nixos.plugin.settings.options import Settings
from pytest_nixos.test_secrets.archive import TestSecrets
from pytest_nixos.test_secrets.given import GivenSecret

__all__ = ["ClusterLaunch", "boot_together"]

_FEWEST = 1
_KINDS = (BackendName.VM, BackendName.CONTAINER)


@dataclass(frozen=True, slots=True)
class _Site:
    """Where the members of one cluster stand.

    :param places: of each card of a host, with its network, by attribute name.
    :param secrets: of those members that have tunnels to others.
    :param recall: ends the start of all.
    :param pct: what Proxmox gives containers, by name.
    """

    places: Mapping[str, Sequence[tuple[ClusterNetwork, Place]]]
    secrets: Mapping[str, TestSecrets] = field(repr=False)
    stack: ExitStack
    recall: Recall = field(default_factory=Recall)
    pct: Mapping[str, Pct] = field(default_factory=dict)


class ClusterLaunch:
    """Starts clusters of hosts; a context manager that ends them all.

    :param own: the flake of the host that is tested.
    :param hosts: of the run, by what it calls them.
    :param cwd: where relative flake refs start.
    :param started_at_s: when the session began, seconds since 1970.
    """

    def __init__(
        self,
        flakes: Flakes,
        settings: Settings,
        *,
        own: FlakeRef,
        hosts: Mapping[str, HostRef],
        cwd: Path,
        progress: Progress,
        config: Any,
        started_at_s: float = 0.0,
    ) -> None:
        self._flakes = flakes
        self._own = own
        self._hosts = hosts
        self._cwd = cwd
        self._settings = settings
        self._config = config
        self._progress = progress
        self._started_at_s = started_at_s
        self._pacer = Pacer()
        self._told: set[str] = set()
        self._stack = ExitStack()
        self._clusters: dict[frozenset[tuple[str, HostRef, BackendName, Pct | None]], Cluster] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._clusters.clear()
        self._stack.close()

    @property
    def running(self) -> tuple[Cluster, ...]:
        """The clusters that were started."""
        return tuple(self._clusters.values())

    def start(
        self,
        *names: str,
        backend: str | Mapping[str, str] | None = None,
        pct: Mapping[str, str] | None = None,
    ) -> Cluster:
        """Start the hosts of these names on their networks; the same hosts are started once.

        :param names: hosts of the flake of the tested host, or others of the run by what it calls
            them; ``REF#HOST`` for one of any flake, as ``--nixos-flake`` takes it.
        :param backend: ``"vm"`` or ``"container"``, for all or by name. By default what
            ``--nixos-backend`` says, else containers for root and VMs for others.
        :param pct: containers that are made by Proxmox: options of ``pct create``, by name.
        :raises FlakeError: if the flake has no such host.
        :raises EvalError: if one does not evaluate.
        :raises MachineError: for containers without root, or if the hosts' networks do not fit
            together; nothing has been built then.
        :raises BootError: if one does not start; none is left running.
        """
        if len(names) < _FEWEST:
            raise FlakeError(
                "a cluster of no hosts", remedy='name hosts of the flake: nixos_cluster("a", "b")'
            )
        members = self._members(names)
        strangers = [] if backend is None or isinstance(backend, str) else {*backend} - {*members}
        for name in sorted(strangers):
            raise SettingsError(
                f"{name}: no member of this cluster", remedy=f"its hosts are {', '.join(members)}"
            )
        kinds = {name: self._kind(name, backend) for name in members}
        given = _given(pct or {}, kinds)
        key = frozenset((n, ref, kinds[n], given.get(n)) for n, ref in members.items())
        if key not in self._clusters:
            with ExitStack() as stack, self._progress.speaking():
                self._clusters[key] = self._start(members, kinds, given, stack)
                self._stack.push(stack.pop_all())
        return self._clusters[key]

    def _members(self, words: Sequence[str]) -> dict[str, HostRef]:
        """Return the hosts by what the cluster calls them: by attribute, and as they were asked for
        where that is the name of two.
        """
        refs = {word: self._ref(word) for word in words}
        count = Counter(ref.attr for ref in set(refs.values()))
        found: dict[HostRef, str] = {}
        for word, ref in refs.items():
            found.setdefault(ref, ref.attr if count[ref.attr] == 1 else word)
        return {name: ref for ref, name in found.items()}

    def _ref(self, word: str) -> HostRef:
        if "#" in word:
            flake = word.partition("#")[0]
            found = HostSelection.parse(word, cwd=self._cwd, asked_by="nixos_cluster").host
            assert found is not None
            return found if flake else HostRef(self._own, found.attr)
        other = self._hosts.get(word)
        if other is None or other.flake == self._own:
            return HostRef(self._own, word)
        is_own = word in self._flakes.of(self._own).host_names()
        return HostRef(self._own, word) if is_own else other

    def _kind(self, name: str, asked: str | Mapping[str, str] | None) -> BackendName:
        word = asked if isinstance(asked, str) or asked is None else asked.get(name)
        if word is not None and word not in _KINDS:
            raise SettingsError(
                f"{name}: no machine of a cluster is a {word!r}",
                remedy=f"say one of {', '.join(_KINDS)}",
            )
        is_root = os.geteuid() == 0
        default = self._settings.backend if self._settings.backend in _KINDS else None
        kind = BackendName(word) if word else default
        kind = kind or (BackendName.CONTAINER if is_root else BackendName.VM)
        if kind is BackendName.CONTAINER and not is_root:
            raise MachineError(
                f"{name}: a machine of a cluster that is a container needs root",
                remedy='run as root, or have a VM: nixos_cluster(..., backend="vm")',
            )
        return kind

    def _start(
        self,
        members: Mapping[str, HostRef],
        kinds: Mapping[str, BackendName],
        pct: Mapping[str, Pct],
        stack: ExitStack,
    ) -> Cluster:
        def make_secrets(host: HostConfig, more: Sequence[GivenSecret]) -> TestSecrets:
            return secrets_of(host, self._settings, self._config, more=more)

        plan = Members(refs=members, kinds=kinds, pct=pct, say=self._progress.say).planned(
            self._flakes, None if self._settings.real_secrets_key is not None else make_secrets
        )
        hosts, planned = plan.hosts, plan.networks
        refusal = no_wireguard(plan.owners, kinds, SubprocessRunner())
        for note in (*plan.notes, *filter(None, [refusal])):
            self._tell_once(note)
        networks = [
            stack.enter_context(cluster_network(network, stack.enter_context(run_directory()).path))
            for network in planned
        ]
        site = _Site(
            places={
                name: sorted(
                    (
                        (net, place)
                        for net in networks
                        for place in net.places
                        if place.host == name
                    ),
                    key=lambda entry: entry[1].number,
                )
                for name in hosts
            },
            secrets=plan.keys.secrets,
            stack=stack,
            pct=pct,
        )
        machines, plugs = {}, {}
        for name, kind in kinds.items():
            make = self._vm if kind is BackendName.VM else self._container
            machines[name], plugs[name] = make(name, hosts[name], site)
        began_s = time.monotonic()
        boot_together(list(machines.values()), site.recall)
        for name, machine in machines.items():
            stack.enter_context(door_of(machine, name))
        for network in networks:
            network.switch.bring_in(*(port_name(place) for place in network.places))
        cluster = Cluster(
            machines,
            networks,
            addresses=addresses_by_host(planned),
            plug=lambda name, connected: plugs[name](connected),
            tunnels=tunnels_of(
                plan.owners.links,
                machines=machines,
                networks=networks,
                addresses=plan.addresses,
                refusal=refusal,
            ),
        )
        for name in pct:
            check_address(machines[name], site.places[name][0][1])
        cluster.introduce()
        self._progress.say(
            f"{', '.join(hosts)}: a cluster after {time.monotonic() - began_s:.1f} s"
        )
        return cluster

    def _tell_once(self, note: str) -> None:
        if note not in self._told:
            self._told.add(note)
            self._progress.say(note)

    def _vm(
        self, name: str, host: HostConfig, site: _Site
    ) -> tuple[Machine, Callable[[bool], None]]:
        """Make a VM whose cards' networks wait for it.

        A state that is saved must not hold connections to peers that are other ones next time, so
        it boots apart from them and meets them when all are up.
        """
        apart = self._settings.snapshot is not SnapshotUse.OFF
        spec = self._spec(name, host, site)
        cards = []
        for network, place in site.places[name]:
            path = card_socket(spec.run_dir, place.number)
            network.switch.add_card(port_name(place), path, apart=apart)
            lease = f"{place.address}" if place.is_leased else ""
            cards.append(NetworkCard(hardware=place.card.hardware, lease=lease))
        memory = plan_memory(host, asked_mib=self._settings.memory_mib, machines=len(site.places))
        spec = replace(spec, cards=tuple(cards), memory_mib=memory.mib, cores=self._settings.cores)
        backend = bundled_backend(
            BackendName.VM,
            # A cluster's networks have no way out, whatever a single machine's has.
            replace(self._settings, network=NetworkUse.RESTRICTED),
            self._progress.boot,
            started_at_s=self._started_at_s,
            host=name,
        )
        machine = site.stack.enter_context(Machine(spec, backend))
        return machine, lambda connected: _plug(machine, connected)

    def _container(
        self, name: str, host: HostConfig, site: _Site
    ) -> tuple[Machine, Callable[[bool], None]]:
        [(network, place)] = site.places[name]
        ports = ContainerPorts(
            SubprocessRunner(),
            os.environ,
            network,
            place,
            root_is_machine_root=self._settings.container_root_is_machine_root,
            configures_itself=name in site.pct,
        )
        backend: Backend = ContainerBackend(on_event=self._progress.boot, strategy=ports)
        spec = self._spec(name, host, site)
        if given := site.pct.get(name):
            spec = replace(spec, pct=given, memory_mib=given.memory_mib)
        machine = site.stack.enter_context(Machine(spec, backend))
        return machine, lambda connected: ports.plug(connected=connected)

    def _spec(self, name: str, host: HostConfig, site: _Site) -> MachineSpec:
        directory = site.stack.enter_context(run_directory())
        system = self._flakes.of(host.ref.flake).build(
            host, gc_root=directory.path / "system", on_progress=self._progress.build
        )
        pace = self._pacer.now()
        return MachineSpec(
            host=host,
            system=system,
            run_dir=directory.path,
            boot_timeout_s=pace.limit(self._settings.boot_timeout_s),
            pace=pace,
            secrets=archived(
                site.secrets.get(name) or secrets_of(host, self._settings, self._config),
                directory.path,
            ),
            recall=site.recall,
        )


def _given(pct: Mapping[str, str], kinds: Mapping[str, BackendName]) -> dict[str, Pct]:
    """Read what Proxmox gives members."""
    for name in pct:
        if name not in kinds:
            raise SettingsError(
                f"pct of {name}: no member of this cluster",
                remedy=f"its hosts are {', '.join(kinds)}",
            )
        if kinds[name] is not BackendName.CONTAINER:
            raise SettingsError(
                f"pct of {name}: it is a VM, and Proxmox makes VMs otherwise",
                remedy=f'have a container: nixos_cluster(..., backend={{"{name}": "container"}}), as root',
            )
    return {name: Pct.parse(command, member=name) for name, command in pct.items()}


def boot_together(machines: Sequence[Machine], recall: Recall) -> None:
    """Start all at once, as far as this machine has processors.

    Where one fails, or the run is interrupted, the others are not waited for.

    :param recall: of all of them.
    """
    with ThreadPoolExecutor(max_workers=min(len(machines), os.cpu_count() or 1)) as pool:
        try:
            under_way = [pool.submit(machine.start) for machine in machines]
            over = wait(under_way, return_when=FIRST_EXCEPTION).done
            for started in under_way:
                if started in over:
                    started.result()
        except BaseException:
            recall.give()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _plug(machine: Machine, connected: bool) -> None:
    running = machine.running
    assert isinstance(running, Pluggable)
    running.plug(connected=connected)
