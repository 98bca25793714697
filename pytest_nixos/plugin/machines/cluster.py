"""From the names of hosts to a running cluster: evaluate as containers, build, start on one
segment, and the way back.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Self

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import FlakeError, MachineError
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.run_directory import run_directory
from pytest_nixos.machine.base import Machine, MachineSpec
from pytest_nixos.machine.cluster.cluster import Cluster
from pytest_nixos.machine.cluster.segment import SegmentStrategy, segment
from pytest_nixos.machine.container.backend import ContainerBackend
from pytest_nixos.nix.flake import Flake
from pytest_nixos.nix.host_facts import HostConfig
from pytest_nixos.plugin.evaluate import FURTHER_OPTIONS
from pytest_nixos.plugin.options import Settings
from pytest_nixos.plugin.progress import Progress

__all__ = ["ClusterLaunch"]

_FEWEST = 1


class ClusterLaunch:
    """Starts clusters of the hosts of one flake; a context manager that ends them all.

    The machines are containers, whatever the hosts' own backend is: a cluster of VMs has no common
    network yet.
    """

    def __init__(
        self, flake: Flake, settings: Settings, *, progress: Progress, config: Any
    ) -> None:
        self._flake = flake
        self._settings = settings
        self._config = config
        self._progress = progress
        self._stack = ExitStack()
        self._clusters: dict[frozenset[str], Cluster] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._clusters.clear()
        self._stack.close()

    def start(self, *names: str) -> Cluster:
        """Start the hosts of these names on one network; the same hosts are started once.

        :raises FlakeError: if the flake has no such host.
        :raises EvalError: if one does not evaluate.
        :raises MachineError: without root, or if two hosts declare the same address.
        :raises BootError: if one does not start; none is left running.
        """
        key = frozenset(names)
        if key not in self._clusters:
            _refuse(names)
            with ExitStack() as stack:
                self._clusters[key] = self._start(tuple(dict.fromkeys(names)), stack)
                self._stack.push(stack.pop_all())
        return self._clusters[key]

    def _start(self, names: Sequence[str], stack: ExitStack) -> Cluster:
        with self._progress.speaking():
            hosts = [self._evaluated(name) for name in names]
            runner = SubprocessRunner()
            common = stack.enter_context(segment(runner, hosts))
            strategy = SegmentStrategy(
                runner,
                os.environ,
                common,
                root_is_machine_root=self._settings.container_root_is_machine_root,
            )
            machines = {host.name: self._machine(host, strategy, stack) for host in hosts}
            cluster = Cluster(machines, common)
            cluster.introduce()
        return cluster

    def _evaluated(self, name: str) -> HostConfig:
        self._progress.say(f"{name}: evaluating it as a machine of a cluster")
        return self._flake.evaluate(
            name, backend=BackendName.CONTAINER, option_paths=FURTHER_OPTIONS
        )

    def _machine(self, host: HostConfig, strategy: SegmentStrategy, stack: ExitStack) -> Machine:
        from pytest_nixos.plugin.machines.secrets import archived, secrets_of

        directory = stack.enter_context(run_directory())
        system = self._flake.build(
            host, gc_root=directory.path / "system", on_progress=self._progress.build
        )
        spec = MachineSpec(
            host=host,
            system=system,
            run_dir=directory.path,
            boot_timeout_s=self._settings.boot_timeout_s,
            secrets=archived(secrets_of(host, self._settings, self._config), directory.path),
        )
        backend = ContainerBackend(on_event=self._progress.boot, strategy=strategy)
        machine = stack.enter_context(Machine(spec, backend))
        machine.start()
        return machine


def _refuse(names: Sequence[str]) -> None:
    if len(names) < _FEWEST:
        raise FlakeError(
            "a cluster of no hosts", remedy='name hosts of the flake: nixos_cluster("a", "b")'
        )
    if os.geteuid() != 0:
        raise MachineError(
            f"cluster of {', '.join(names)}: its machines are containers, and these need root",
            remedy="run as root, or leave out the tests that use nixos_cluster",
        )
