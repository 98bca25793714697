"""From the names of hosts to a running cluster: evaluate, plan the networks, build, start, and the
way back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Self

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import FlakeError, MachineError, SettingsError
from pytest_nixos.local.pace import Pacer
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.run_directory import run_directory
from pytest_nixos.machine.base import Backend, Machine, MachineSpec, NetworkCard
from pytest_nixos.machine.capabilities import Pluggable
from pytest_nixos.machine.cluster.cluster import Cluster
from pytest_nixos.machine.cluster.container_port import ContainerPorts, container_cards
from pytest_nixos.machine.cluster.network import ClusterNetwork, cluster_network, port_name
from pytest_nixos.machine.cluster.plan import Place, addresses_by_host, plan_networks
from pytest_nixos.machine.container.backend import ContainerBackend
from pytest_nixos.machine.memory_needs import plan_memory
from pytest_nixos.machine.vm.argv import card_socket
from pytest_nixos.nix.flake import Flake
from pytest_nixos.nix.host_facts import HostConfig
from pytest_nixos.plugin.declared_options import NetworkUse, SnapshotUse
from pytest_nixos.plugin.evaluate import FURTHER_OPTIONS
from pytest_nixos.plugin.machines.launch import bundled_backend, door_of
from pytest_nixos.plugin.machines.secrets import archived, secrets_of
from pytest_nixos.plugin.options import Settings
from pytest_nixos.plugin.progress import Progress

__all__ = ["ClusterLaunch"]

_FEWEST = 1
#: A VM with the host's own network cards, for Nix.
_MEMBER = "member"
_KINDS = (BackendName.VM, BackendName.CONTAINER)


@dataclass(frozen=True, slots=True)
class _Site:
    """Where the members of one cluster stand.

    :param places: of each card of a host, with its network, by attribute name.
    """

    places: Mapping[str, Sequence[tuple[ClusterNetwork, Place]]]
    stack: ExitStack


class ClusterLaunch:
    """Starts clusters of the hosts of one flake; a context manager that ends them all.

    :param started_at_s: when the session began, seconds since 1970.
    """

    def __init__(
        self,
        flake: Flake,
        settings: Settings,
        *,
        progress: Progress,
        config: Any,
        started_at_s: float = 0.0,
    ) -> None:
        self._flake = flake
        self._settings = settings
        self._config = config
        self._progress = progress
        self._started_at_s = started_at_s
        self._pacer = Pacer()
        self._stack = ExitStack()
        self._clusters: dict[frozenset[tuple[str, BackendName]], Cluster] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._clusters.clear()
        self._stack.close()

    @property
    def running(self) -> tuple[Cluster, ...]:
        """The clusters that were started."""
        return tuple(self._clusters.values())

    def start(self, *names: str, backend: str | Mapping[str, str] | None = None) -> Cluster:
        """Start the hosts of these names on their networks; the same hosts are started once.

        :param backend: ``"vm"`` or ``"container"``, for all or by name. By default what
            ``--nixos-backend`` says, else containers for root and VMs for others.
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
        strangers = [] if backend is None or isinstance(backend, str) else {*backend} - {*names}
        for name in sorted(strangers):
            raise SettingsError(
                f"{name}: no member of this cluster", remedy=f"its hosts are {', '.join(names)}"
            )
        kinds = {name: self._kind(name, backend) for name in names}
        key = frozenset(kinds.items())
        if key not in self._clusters:
            with ExitStack() as stack, self._progress.speaking():
                self._clusters[key] = self._start(kinds, stack)
                self._stack.push(stack.pop_all())
        return self._clusters[key]

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

    def _start(self, kinds: Mapping[str, BackendName], stack: ExitStack) -> Cluster:
        hosts = {name: self._evaluated(name, kind) for name, kind in kinds.items()}
        planned = plan_networks(tuple(hosts.values()))
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
            stack=stack,
        )
        machines, plugs = {}, {}
        for name, kind in kinds.items():
            make = self._vm if kind is BackendName.VM else self._container
            machines[name], plugs[name] = make(hosts[name], site)
        began_s = time.monotonic()
        self._boot(list(machines.values()))
        for name, machine in machines.items():
            stack.enter_context(door_of(machine, name))
        for network in networks:
            network.switch.bring_in(*(port_name(place) for place in network.places))
        cluster = Cluster(
            machines,
            networks,
            addresses=addresses_by_host(planned),
            plug=lambda name, connected: plugs[name](connected),
        )
        cluster.introduce()
        self._progress.say(
            f"{', '.join(hosts)}: a cluster after {time.monotonic() - began_s:.1f} s"
        )
        return cluster

    def _evaluated(self, name: str, kind: BackendName) -> HostConfig:
        self._progress.say(f"{name}: evaluating it as a machine of a cluster")
        backend = _MEMBER if kind is BackendName.VM else kind
        host = self._flake.evaluate(name, backend=backend, option_paths=FURTHER_OPTIONS)
        return host if kind is BackendName.VM else container_cards(host)

    def _vm(self, host: HostConfig, site: _Site) -> tuple[Machine, Callable[[bool], None]]:
        """Make a VM whose cards' networks wait for it.

        A state that is saved must not hold connections to peers that are other ones next time, so
        it boots apart from them and meets them when all are up.
        """
        apart = self._settings.snapshot is not SnapshotUse.OFF
        spec = self._spec(host, site)
        cards = []
        for network, place in site.places[host.name]:
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
            host=host.name,
        )
        machine = site.stack.enter_context(Machine(spec, backend))
        return machine, lambda connected: _plug(machine, connected)

    def _container(self, host: HostConfig, site: _Site) -> tuple[Machine, Callable[[bool], None]]:
        [(network, _)] = site.places[host.name]
        ports = ContainerPorts(
            SubprocessRunner(),
            os.environ,
            network,
            root_is_machine_root=self._settings.container_root_is_machine_root,
        )
        backend: Backend = ContainerBackend(on_event=self._progress.boot, strategy=ports)
        machine = site.stack.enter_context(Machine(self._spec(host, site), backend))
        return machine, lambda connected: ports.plug(host.name, connected=connected)

    def _spec(self, host: HostConfig, site: _Site) -> MachineSpec:
        directory = site.stack.enter_context(run_directory())
        system = self._flake.build(
            host, gc_root=directory.path / "system", on_progress=self._progress.build
        )
        pace = self._pacer.now()
        return MachineSpec(
            host=host,
            system=system,
            run_dir=directory.path,
            boot_timeout_s=pace.limit(self._settings.boot_timeout_s),
            pace=pace,
            secrets=archived(secrets_of(host, self._settings, self._config), directory.path),
        )

    def _boot(self, machines: Sequence[Machine]) -> None:
        """Start all at once, as far as this machine has processors."""
        with ThreadPoolExecutor(max_workers=min(len(machines), os.cpu_count() or 1)) as pool:
            for started in [pool.submit(machine.start) for machine in machines]:
                started.result()


def _plug(machine: Machine, connected: bool) -> None:
    running = machine.running
    assert isinstance(running, Pluggable)
    running.plug(connected=connected)
