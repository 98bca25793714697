"""Ways to start a container: systemd-nspawn by ourselves, or ``nixos-container`` of a NixOS machine."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Mapping
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Protocol

from pytest_nixos.local.namespace import find_leader
from pytest_nixos.local.process import Runner, find_tool
from pytest_nixos.local.remove_tree import remove_tree
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.base import MachineSpec
from pytest_nixos.machine.console import Console
from pytest_nixos.machine.container.cgroup import CGROUP_PREFIX, ContainerCgroup, has_unified_cgroup
from pytest_nixos.machine.container.nix_database import load_closure
from pytest_nixos.machine.container.nixos_container import (
    NixosContainerStrategy,
    has_nixos_container,
)
from pytest_nixos.machine.container.nspawn import (
    OUTSIDE_INTERFACE,
    ContainerPlan,
    environment,
    machine_name,
    nspawn_argv,
    prepare_root,
    private_directory,
    profile_init,
    scope_argv,
    stage_argv,
)
from pytest_nixos.machine.container.started import Launched
from pytest_nixos.machine.network.dhcp import DhcpServer, Lease
from pytest_nixos.machine.network.scan import LinkAddresses, link_addresses
from pytest_nixos.machine.serial_process import SerialProcess
from pytest_nixos.nix.host_facts import HostConfig

__all__ = ["ContainerStrategy", "NspawnStrategy", "choose_strategy"]

_GRACE_S = 3.0
_TOOLS = {
    "systemd-nspawn": "install it (Debian and Ubuntu: apt install systemd-container; NixOS: part of systemd), "
    "or run the host as a VM: --nixos-backend vm",
    "unshare": "install util-linux",
    "ip": "install iproute2",
    "nix-store": "install Nix on this machine; under sudo keep it on PATH",
}


class ContainerStrategy(Protocol):
    """A way to start containers."""

    def launch(
        self,
        spec: MachineSpec,
        console: Console,
        stack: contextlib.ExitStack,
        *,
        deadline: Deadline,
    ) -> Launched:
        """Start a container and return at once.

        :param stack: receives what must be undone, in the order in which it was done.
        :raises MachineError: if it cannot be started at all.
        """
        ...


def choose_strategy(runner: Runner, inherited: Mapping[str, str]) -> ContainerStrategy:
    """Choose ``nixos-container`` on a NixOS machine that has it, systemd-nspawn anywhere else."""
    if has_nixos_container():
        return NixosContainerStrategy(runner, inherited)
    return NspawnStrategy(runner, inherited)


class NspawnStrategy:
    """Starts systemd-nspawn in private namespaces; leaves nothing outside of its run directory.

    :param addresses: chooses the addresses of a host's link.
    """

    def __init__(
        self,
        runner: Runner,
        inherited: Mapping[str, str],
        *,
        addresses: Callable[[HostConfig], LinkAddresses] = link_addresses,
    ) -> None:
        self._runner = runner
        self._inherited = inherited
        self._addresses = addresses

    def launch(
        self,
        spec: MachineSpec,
        console: Console,
        stack: contextlib.ExitStack,
        *,
        deadline: Deadline,
    ) -> Launched:
        """Start a container with the toplevel ``spec.system``; see :class:`ContainerStrategy`.

        :raises ToolMissingError: if a program is missing on this machine.
        """
        for name in _TOOLS:
            self._tool(name)
        root = spec.run_dir / "root"
        stack.callback(remove_tree, root)
        prepare_root(root, spec.system)
        load_closure(self._runner, root, spec.system, deadline=deadline)
        plan = ContainerPlan(
            name=machine_name(spec.host.name),
            run_dir=spec.run_dir,
            root=root,
            init=str(spec.system / "init"),
            cgroup=f"{CGROUP_PREFIX}{os.getpid()}-{spec.run_dir.name}",
            addresses=self._addresses(spec.host),
        )
        life = stack.enter_context(contextlib.ExitStack())
        launched = self.launch_plan(plan, console, life)

        def relaunch(generation: int | None) -> Launched:
            again = dataclasses.replace(plan, init=profile_init(generation))
            return dataclasses.replace(self.launch_plan(again, console, life), relaunch=relaunch)

        return dataclasses.replace(launched, relaunch=relaunch)

    def launch_plan(
        self, plan: ContainerPlan, console: Console, stack: contextlib.ExitStack
    ) -> Launched:
        """Start a container whose root directory is ready."""
        private = private_directory(plan.run_dir)
        stack.callback(remove_tree, private)
        # systemd-nspawn removes its lock beside the root directory only if it ends in peace.
        lock = plan.root.with_name(f".#{plan.root.name}.lck")
        stack.callback(lock.unlink, missing_ok=True)
        private.mkdir(mode=0o700)
        process = SerialProcess(
            self.argv(plan), env=environment(self._inherited), cwd=plan.run_dir, console=console
        )
        cgroup = ContainerCgroup(plan.cgroup)
        stack.callback(cgroup.remove)
        stack.callback(process.stop, grace_s=_GRACE_S)
        process.start()
        return Launched(
            process=process,
            find_leader=lambda: find_leader(process.pid),
            outside_pid=process.pid,
            interface=OUTSIDE_INTERFACE,
            target=plan.addresses.target,
            cgroup_of=lambda leader: cgroup.of_container(process.pid, leader),
            on_created=lambda: _serve_dhcp(process.pid, plan.addresses),
            life=stack,
        )

    def argv(self, plan: ContainerPlan) -> list[str]:
        """Build the whole argv: in a scope where this machine's systemd owns the cgroups, in a new cgroup elsewhere."""
        nspawn = nspawn_argv(plan, self._tool("systemd-nspawn"))
        systemd_run = shutil.which("systemd-run")
        if systemd_run and Path("/run/systemd/system").is_dir() and has_unified_cgroup():
            scoped = dataclasses.replace(plan, cgroup="")
            stage = stage_argv(scoped, nspawn, unshare=self._tool("unshare"))
            return scope_argv(systemd_run, plan.cgroup, stage)
        return stage_argv(plan, nspawn, unshare=self._tool("unshare"))

    @staticmethod
    def _tool(name: str) -> str:
        return find_tool(name, remedy=_TOOLS[name])


def _serve_dhcp(outside_pid: int, addresses: LinkAddresses) -> Callable[[], None]:
    """Lease the guest the address that it has been given; a host that declares its own asks for none."""
    guest = addresses.guest or IPv4Interface(
        (addresses.target, addresses.outside.network.prefixlen)
    )
    lease = Lease(server=addresses.outside.ip, guest=guest)
    return DhcpServer(outside_pid, OUTSIDE_INTERFACE, lease).close
