"""What this machine does to a container as a whole: it freezes its processes, and cuts its link."""

from __future__ import annotations

from pathlib import Path

from pytest_nixos.errors import MachineError
from pytest_nixos.local.namespace import link_argv
from pytest_nixos.local.process import Runner
from pytest_nixos.local.timing import Deadline, poll

__all__ = ["freeze_cgroup", "plug_link"]

_ORDER_S = 10.0
_INTERVAL_S = 0.01


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
    """Freeze or thaw a container by its control group (cgroup.freeze, cgroups(7)) and wait until
    it is so.

    :raises MachineError: if it has no control group that we may write to, or the kernel does not
        follow.
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
