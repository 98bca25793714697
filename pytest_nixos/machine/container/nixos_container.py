"""``nixos-container`` of a NixOS machine, by its documented commands (NixOS manual, "Container Management").

Written from nixpkgs ``pkgs/tools/virtualization/nixos-container/nixos-container.pl`` (24.05). It has been
tried only with a stand-in for the program, because it needs a NixOS machine with systemd and machined.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

from pytest_nixos.errors import MachineError, NixosError
from pytest_nixos.local.process import Runner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.base import MachineSpec
from pytest_nixos.machine.console import Console
from pytest_nixos.machine.container.cgroup import visible_cgroup
from pytest_nixos.machine.container.started import Launched
from pytest_nixos.machine.serial_process import SerialProcess

__all__ = ["NixosContainerStrategy", "has_nixos_container", "stale_names"]

# Names have at most 11 characters, because they become part of an interface's name; "-N" may be added.
_PREFIX = "pn"
_OWN_NAME = re.compile(rf"{_PREFIX}(\d+)(?:-\d+)?")
_LEADER = re.compile(r"^Leader=([1-9]\d*)$", re.MULTILINE)
_SHORT_S = 30.0
_DESTROY_S = 120.0
_GRACE_S = 1.0


def has_nixos_container(*, root: Path = Path("/")) -> bool:
    """Whether this is a running NixOS with ``boot.enableContainers``."""
    return (
        (root / "etc/NIXOS").exists()
        and (root / "run/systemd/system").is_dir()
        and (root / "etc/systemd/system/container@.service").exists()
        and shutil.which("nixos-container") is not None
    )


def stale_names(names: Sequence[str], *, proc: Path = Path("/proc")) -> list[str]:
    """Pick the containers whose owner, told by the name, does not run any more."""
    owned = ((name, _OWN_NAME.fullmatch(name)) for name in names)
    return [name for name, found in owned if found and not (proc / found[1]).exists()]


class NixosContainerStrategy:
    """Creates a container, starts it as ``container@NAME.service``, and destroys it."""

    def __init__(self, runner: Runner, inherited: Mapping[str, str]) -> None:
        self._runner = runner
        self._inherited = inherited

    def launch(
        self,
        spec: MachineSpec,
        console: Console,
        stack: contextlib.ExitStack,
        *,
        deadline: Deadline,
    ) -> Launched:
        """Start a container with the toplevel ``spec.system``; see :class:`ContainerStrategy`."""
        self._sweep(deadline)
        # More than one machine of one session: the program numbers the names.
        create = ("create", f"{_PREFIX}{os.getpid()}", "--system-path", str(spec.system))
        name = self._container(*create, "--ensure-unique-name", deadline=deadline).strip()
        stack.callback(self._destroy, name)
        process = self._follow_journal(spec, name, console)
        stack.callback(process.stop, grace_s=_GRACE_S)
        process.start()
        target = self._container("show-ip", name, deadline=deadline).strip()
        self._run(
            ["systemctl", "start", "--no-block", f"container@{name}.service"], deadline=deadline
        )
        return Launched(
            process=process,
            find_leader=lambda: self._find_leader(name),
            outside_pid=os.getpid(),
            interface=f"ve-{name}",
            target=_address(name, target),
            cgroup_of=visible_cgroup,
            on_created=lambda: _nothing,
            life=stack,
        )

    def _follow_journal(self, spec: MachineSpec, name: str, console: Console) -> SerialProcess:
        # systemd-nspawn of container@.service writes the guest's console to the journal.
        return SerialProcess(
            [
                "journalctl",
                "--follow",
                "--lines=all",
                f"--since=@{int(time.time())}",
                "--output=cat",
                f"--unit=container@{name}.service",
            ],
            env=dict(self._inherited),
            cwd=spec.run_dir,
            console=console,
        )

    def _find_leader(self, name: str) -> int | None:
        argv = ["machinectl", "show", name, "--property=Leader"]
        answer = self._runner.run(argv, deadline=Deadline.after(_SHORT_S))
        found = _LEADER.search(answer.stdout_text)
        return int(found[1]) if found else None

    def _sweep(self, deadline: Deadline) -> None:
        for name in stale_names(self._container("list", deadline=deadline).split()):
            with contextlib.suppress(NixosError):
                self._destroy(name)

    def _destroy(self, name: str) -> None:
        self._container("destroy", name, deadline=Deadline.after(_DESTROY_S))

    def _container(self, *arguments: str, deadline: Deadline) -> str:
        return self._run(["nixos-container", *arguments], deadline=deadline)

    def _run(self, argv: Sequence[str], *, deadline: Deadline) -> str:
        done = self._runner.run(argv, deadline=deadline)
        if done.exit_status != 0:
            lines = done.stderr_text.strip().splitlines() or ["no message"]
            raise MachineError(
                f"{' '.join(argv[:3])}: {lines[-1]}",
                remedy="try the command by hand; containers need boot.enableContainers on this machine",
                detail=done.stderr_text,
            )
        return done.stdout_text


def _nothing() -> None:
    """The container's service has set up all that it needs."""


def _address(name: str, text: str) -> IPv4Address:
    try:
        return IPv4Address(text.partition("/")[0])
    except AddressValueError as err:
        raise MachineError(
            f"nixos-container show-ip {name}: expected an IPv4 address, got {text[:60]!r}",
            remedy="look at the container's file in /etc/nixos-containers",
        ) from err
