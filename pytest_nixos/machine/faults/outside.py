"""What can be done to a machine from outside, as the world would: stop it in its tracks, pull its cable.

Backends offer these where they can; a live host over ssh offers none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from pytest_nixos.errors import MachineError
from pytest_nixos.local.namespace import link_argv
from pytest_nixos.local.process import Runner
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.qemu.qmp import QmpMonitor

__all__ = [
    "Freezable",
    "Pluggable",
    "freeze_cgroup",
    "plug_link",
    "plug_network_cards",
]

_ORDER_S = 10.0
_INTERVAL_S = 0.01


@runtime_checkable
class Freezable(Protocol):
    """A machine whose processors can be stopped; its own clock may or may not go on."""

    def freeze(self) -> None:
        """Stop all of it at once."""
        ...

    def thaw(self) -> None:
        """Let it go on; harmless where it was not stopped."""
        ...


@runtime_checkable
class Pluggable(Protocol):
    """A machine whose network cable can be pulled."""

    def plug(self, *, connected: bool) -> None:
        """Connect or cut its network cards; the guest sees the carrier come and go."""
        ...


def plug_network_cards(monitor: QmpMonitor, *, connected: bool) -> None:
    """Give or take the carrier of every network card of a VM (QMP ``set_link``).

    :raises MachineError: if it has no card that QEMU can tell of, or QEMU refuses.
    """
    deadline = Deadline.after(_ORDER_S)
    cards = [card["name"] for card in monitor.execute("query-rx-filter", deadline=deadline)]
    if not cards:
        raise MachineError(
            "the VM has no network card whose cable could be pulled",
            remedy="give it a virtio card, as qemu-vm.nix does (virtualisation.qemu.networkingOptions)",
        )
    for card in cards:
        monitor.execute("set_link", {"name": card, "up": connected}, deadline=deadline)


def plug_link(runner: Runner, nsenter: str, pid: int, interface: str, *, connected: bool) -> None:
    """Set the outer end of a container's link up or down.

    :param pid: a process in the network namespace that holds `interface`.
    :raises MachineError: if ``ip`` refuses.
    """
    state = "up" if connected else "down"
    argv = link_argv(pid, interface, state, nsenter=nsenter)
    done = runner.run(argv, deadline=Deadline.after(_ORDER_S))
    if done.exit_status != 0:
        raise MachineError(
            f"the container's link {interface} cannot be set {state}: {done.stderr_text.strip()}",
            remedy="see whether the container still runs",
        )


def freeze_cgroup(cgroup: Path | None, *, frozen: bool) -> None:
    """Freeze or thaw a container by its control group (cgroup.freeze, cgroups(7)) and wait until it is so.

    :raises MachineError: if it has no control group that we may write to, or the kernel does not follow.
    """
    if cgroup is None:
        raise MachineError(
            "the container has no control group of its own, so it cannot be stopped",
            remedy="run as root on a machine with the unified control group hierarchy, or as a VM",
        )
    wanted = int(frozen)
    try:
        (cgroup / "cgroup.freeze").write_text(f"{wanted}\n")
        followed = poll(
            lambda: f"frozen {wanted}" in (cgroup / "cgroup.events").read_text() or None,
            deadline=Deadline.after(_ORDER_S),
            interval_s=_INTERVAL_S,
        )
    except OSError as err:
        raise MachineError(
            f"{cgroup}: cannot be {'frozen' if frozen else 'thawed'}: {err.strerror}",
            remedy="the kernel must know cgroup.freeze (Linux 5.2)",
        ) from err
    if followed is None:
        raise MachineError(
            f"{cgroup}: did not become {'frozen' if frozen else 'thawed'} within {_ORDER_S:g} s",
            remedy="look for processes that wait in the kernel (state D)",
        )
