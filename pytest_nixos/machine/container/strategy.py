"""How a container is started: systemd-nspawn with user ids, mounts, groups and a network of its
own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Protocol

from pytest_nixos.errors import MachineError
from pytest_nixos.local.namespace import find_leader
from pytest_nixos.local.process import Runner, find_tool
from pytest_nixos.local.remove_tree import remove_tree
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.base import MachineSpec
from pytest_nixos.machine.console import Console
from pytest_nixos.machine.container.boot_notice import BootNotice
from pytest_nixos.machine.container.cgroup import CGROUP_PREFIX, ContainerCgroup, has_unified_cgroup
from pytest_nixos.machine.container.channel import prepare_channel
from pytest_nixos.machine.container.disk import IMAGE, PLAIN, ROOT, STORE, make_disk, prepare_root
from pytest_nixos.machine.container.gate import Gate
from pytest_nixos.machine.container.kept_database import KeptDatabases
from pytest_nixos.machine.container.limits import OldGroups, limits_of, reached, words
from pytest_nixos.machine.container.nix_database import load_closure
from pytest_nixos.machine.container.nspawn import (
    CHANNEL,
    GATE,
    OUTSIDE_INTERFACE,
    ContainerPlan,
    environment,
    guest_link_batch,
    machine_name,
    nspawn_argv,
    private_directory,
    profile_init,
    scope_argv,
    stage_argv,
)
from pytest_nixos.machine.container.started import Launched
from pytest_nixos.machine.container.users import UserRange, choose_range, own_tree, ping_groups
from pytest_nixos.machine.network.advertise import Advertisement, Advertiser
from pytest_nixos.machine.network.dhcp import DhcpServer, Lease
from pytest_nixos.machine.network.scan import OWN_PREFIX, LinkAddresses, link_addresses
from pytest_nixos.machine.network.stand_in import StandIn, name_resolver
from pytest_nixos.machine.pct import UNPRIVILEGED_IDS
from pytest_nixos.machine.serial_process import SerialProcess
from pytest_nixos.nix.config.host_facts import HostConfig

__all__ = ["ContainerStrategy", "NspawnStrategy", "require_tools"]

_GRACE_S = 3.0
_MOVE_INTERVAL_S = 0.02
_NOT_MOVED = "Cannot find device"  # iproute2's words
_SHORT_S = 30.0
# Name of a socket in the run directory.
_NOTICE = "ready.sock"
_TOOLS = {
    "systemd-nspawn": "install it (Debian and Ubuntu: apt install systemd-container; NixOS: part of systemd), "
    "or run the host as a VM: --nixos-backend vm",
    "unshare": "install util-linux",
    "nsenter": "install util-linux",
    "ip": "install iproute2",
    "nix-store": "install Nix on this machine; under sudo keep it on PATH",
}


def require_tools() -> None:
    """Look for all programs of this machine that start a container.

    :raises ToolMissingError: naming the first that is missing, with the package that has it.
    """
    for name, remedy in _TOOLS.items():
        find_tool(name, remedy=remedy)


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


class NspawnStrategy:
    """Starts systemd-nspawn in private namespaces; leaves nothing outside of its run directory.

    :param addresses: chooses the addresses of a host's link.
    :param root_is_machine_root: give the container this machine's own user ids; see
        ``users.UNSAFE_OPTION``.
    :param stand_in: let the other end of its link stand in for the internet.
    :param databases: Nix databases of earlier containers; those of this user if ``None``.
    """

    def __init__(
        self,
        runner: Runner,
        inherited: Mapping[str, str],
        *,
        addresses: Callable[[HostConfig], LinkAddresses] = link_addresses,
        root_is_machine_root: bool = False,
        stand_in: bool = False,
        databases: KeptDatabases | None = None,
    ) -> None:
        self._databases = databases or KeptDatabases.of_user()
        self._stand_in = stand_in
        self._runner = runner
        self._inherited = inherited
        self._addresses = addresses
        self._root_is_machine_root = root_is_machine_root

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
        require_tools()
        users = self._users(spec)
        plan = ContainerPlan(
            name=machine_name(spec.host.name),
            run_dir=spec.run_dir,
            init=str(spec.system / "init"),
            cgroup=f"{CGROUP_PREFIX}{os.getpid()}-{spec.run_dir.name}",
            addresses=self._addresses(spec.host),
            limits=limits_of(spec),
            users=users,
            stand_in=self._stand_in,
            processors=_processors(spec),
            ping_groups=ping_groups(spec.host, users),
        )
        _cleared_away(spec.run_dir, stack)
        gate = stack.enter_context(Gate(spec.run_dir / GATE))
        life = stack.enter_context(contextlib.ExitStack())
        launched = self.launch_plan(plan, console, life)
        self._prepare(spec, users, console, deadline)
        gate.let_pass()

        def relaunch(generation: int | None) -> Launched:
            again = dataclasses.replace(plan, init=profile_init(generation))
            gate.let_pass()
            return dataclasses.replace(self.launch_plan(again, console, life), relaunch=relaunch)

        return dataclasses.replace(launched, relaunch=relaunch)

    def launch_plan(
        self, plan: ContainerPlan, console: Console, stack: contextlib.ExitStack
    ) -> Launched:
        """Start a container, which waits at its gate until its disk is ready."""
        private = private_directory(plan.run_dir)
        stack.callback(remove_tree, private)
        private.mkdir(mode=0o700)
        old = OldGroups(plan.cgroup, plan.limits)
        stack.callback(old.remove)
        notice = BootNotice(plan.run_dir / _NOTICE)
        stack.callback(notice.close)
        process = SerialProcess(
            self.argv(plan, join=tuple(old.paths.values())),
            env=environment(self._inherited, notice=notice.path),
            cwd=plan.run_dir,
            console=console,
        )
        cgroup = ContainerCgroup(plan.cgroup)
        stack.callback(cgroup.remove)
        stack.callback(process.stop, grace_s=_GRACE_S)
        process.start()
        told = {"memory": 0, "tasks": 0}

        def limits_reached() -> Sequence[str]:
            counts = reached(cgroup.of_container(process.pid), old.paths)
            news = [kind for kind, count in counts.items() if count > told[kind]]
            told.update(counts)
            return tuple(words(kind, plan.limits) for kind in news)

        def created(leader_pid: int) -> Callable[[], None]:
            self.address(leader_pid, process.pid, plan.addresses, default_route=plan.stand_in)
            return _serve(process.pid, plan.addresses, stand_in=plan.stand_in)

        return Launched(
            process=process,
            find_leader=lambda: find_leader(process.pid),
            outside_pid=process.pid,
            interface=OUTSIDE_INTERFACE,
            target=plan.addresses.target,
            more=plan.addresses.more,
            guest_cgroup=lambda: cgroup.of_guest(process.pid),
            limits_reached=limits_reached,
            # The private directory, as those see it who live in the surroundings.
            channel=Path(f"/proc/{process.pid}/root{private / CHANNEL}"),
            on_created=created,
            notice=notice,
            life=stack,
        )

    def address(
        self,
        leader_pid: int,
        outside_pid: int,
        addresses: LinkAddresses,
        *,
        default_route: bool = False,
    ) -> None:
        """Give the container's end of the link its addresses, and set it up.

        :param leader_pid: the container's process 1; only its network is entered, with programs of
            this machine.
        :param outside_pid: a process in the network that surrounds the container.
        :raises MachineError: if ``ip`` refuses.
        """
        network = f"--net=/proc/{leader_pid}/ns/net"
        argv = (self._tool("nsenter"), network, "--", "ip", "-batch", "-")
        wanted = guest_link_batch(addresses, default_route=default_route)
        # Process 1 exists before it leaves the network around it, and systemd-nspawn moves the link
        # after that (inner_child() and run_container() of systemd's nspawn.c). What is set too early is
        # set outside, and lost on the way.
        moved = Deadline.after(_SHORT_S)
        poll(
            lambda: _is_apart(leader_pid, outside_pid) or None,
            deadline=moved,
            interval_s=_MOVE_INTERVAL_S,
        )
        while True:
            done = self._runner.run(argv, stdin=wanted.encode(), deadline=Deadline.after(_SHORT_S))
            if _NOT_MOVED not in done.stderr_text or moved.expired:
                break
            time.sleep(_MOVE_INTERVAL_S)
        if done.exit_status != 0:
            raise MachineError(
                f"ip: {done.stderr_text.strip()}",
                remedy="look at the console: the container has probably ended",
                detail=wanted,
            )

    def argv(self, plan: ContainerPlan, *, join: Sequence[Path] = ()) -> list[str]:
        """Build the whole argv: in a scope where this machine's systemd owns the cgroups, in a
        new cgroup elsewhere.
        """
        nspawn = nspawn_argv(plan, self._tool("systemd-nspawn"))
        systemd_run = shutil.which("systemd-run")
        unshare = self._tool("unshare")
        if systemd_run and Path("/run/systemd/system").is_dir() and has_unified_cgroup():
            scoped = dataclasses.replace(plan, cgroup="")
            stage = stage_argv(scoped, nspawn, unshare=unshare, join=join)
            return scope_argv(systemd_run, plan.cgroup, plan.limits, stage)
        return stage_argv(plan, nspawn, unshare=unshare, join=join)

    def _users(self, spec: MachineSpec) -> UserRange | None:
        if self._root_is_machine_root:
            return None
        if spec.pct is not None:
            return choose_range(spec.host, size=UNPRIVILEGED_IDS)
        return choose_range(spec.host)

    def _prepare(
        self,
        spec: MachineSpec,
        users: UserRange | None,
        console: Console,
        deadline: Deadline,
    ) -> None:
        """Fill the run directory with what outlives one boot: the disk, and what the guest gets
        for its channel.
        """
        run_dir = spec.run_dir
        disk = run_dir / PLAIN
        prepare_root(disk / ROOT, spec.system, {} if spec.pct is None else spec.pct.files)
        load_closure(
            self._runner,
            disk / ROOT,
            spec.system,
            known=spec.registration,
            kept=self._databases,
            deadline=deadline,
        )
        if self._stand_in:
            name_resolver(disk / ROOT, self._addresses(spec.host).outside.ip)
        (disk / STORE).mkdir(mode=0o755)
        if users is not None:
            own_tree(disk / ROOT, users.base)
            own_tree(disk / STORE, users.base)
        why_not = make_disk(self._runner, run_dir, deadline=deadline)
        if why_not:
            console.append(f"pytest-nixos: the container's disk has no bound: {why_not}")
        prepare_channel(run_dir / CHANNEL, spec.system, spec.secrets)

    @staticmethod
    def _tool(name: str) -> str:
        return find_tool(name, remedy=_TOOLS[name])


def _cleared_away(run_dir: Path, stack: contextlib.ExitStack) -> None:
    """Have removed at the end what outlives one boot."""
    stack.callback((run_dir / IMAGE).unlink, missing_ok=True)
    stack.callback(remove_tree, run_dir / PLAIN)
    stack.callback(remove_tree, run_dir / CHANNEL)


def _is_apart(leader_pid: int, outside_pid: int) -> bool:
    """Whether process 1 has a network of its own; of one that has ended the next command tells."""
    try:
        return not Path(f"/proc/{leader_pid}/ns/net").samefile(f"/proc/{outside_pid}/ns/net")
    except OSError:
        return True


def _processors(spec: MachineSpec) -> tuple[int, ...]:
    cores = None if spec.pct is None else spec.pct.cores
    return () if cores is None else tuple(sorted(os.sched_getaffinity(0))[:cores])


def _serve(outside_pid: int, addresses: LinkAddresses, *, stand_in: bool) -> Callable[[], None]:
    """Answer what a guest asks of its link: a lease of the address that it has been given, a
    router for IPv6, and names and the time where the link stands in for the internet.

    A host that declares its own address asks for none.
    """
    guest = addresses.guest or IPv4Interface(
        (addresses.target, addresses.outside.network.prefixlen)
    )
    own = addresses.outside.ip
    with contextlib.ExitStack() as stack:
        lease = Lease(server=own, guest=guest, serves_names=stand_in)
        stack.callback(DhcpServer(outside_pid, OUTSIDE_INTERFACE, lease).close)
        offer = Advertisement(prefix=OWN_PREFIX)
        stack.callback(Advertiser(outside_pid, OUTSIDE_INTERFACE, offer).close)
        if stand_in:
            stack.callback(StandIn(outside_pid, own).close)
        return stack.pop_all().close
