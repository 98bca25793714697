"""A real keeper whose machine is a process that sleeps: ``a_keeper.py HOST KEY LIMIT_S OWNER``."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.base import MachineSpec
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.machine.console import Console
from pytest_nixos.machine.keeper.keeper import Keeper
from pytest_nixos.machine.keeper.order import SpareOrder
from pytest_nixos.machine.serial_process import SerialProcess
from pytest_nixos.machine.snapshot.record import GuestAtRest
from pytest_nixos.machine.spare.handing import Handed, HandedPort
from pytest_nixos.machine.vm.launcher import VmOptions


class Running:
    """The machine; what is said on its port comes back."""

    restored_from = SimpleNamespace(record=SimpleNamespace(saved_at_s=7.0, console=()))

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.console = Console()
        self.transport = self
        self.process = SerialProcess(
            ["bash", "-c", "echo up; while read -r line; do echo heard $line; done; sleep 600"],
            env=dict(os.environ),
            cwd=run_dir,
            console=self.console,
        )
        self.process.start()

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        del deadline, stdin
        return CommandResult(command=command, exit_status=0, stdout=b"", stderr=b"", duration_s=0.0)

    def is_alive(self) -> bool:
        return not self.process.has_ended

    def set_aside(self, *, shown: int, deadline: Deadline) -> tuple[Handed, tuple[int, ...]]:
        del deadline
        while not self.console.count:
            time.sleep(0.01)
        ours, its = socket.socketpair()
        threading.Thread(target=_echo, args=(its,), daemon=True).start()
        handed = Handed(
            run_dir=str(self.run_dir),
            pid=self.process.pid,
            paused_at_s=5.0,
            guest=GuestAtRest(failed_units=(), timers={}),
            lines=self.console.since(shown),
            ports=(HandedPort(name="control", session="s", serial=3),),
        )
        return handed, (self.process.let_go(), ours.detach())

    def stop(self) -> None:
        self.process.stop(grace_s=0.5)


class Backend:
    """Knows one key."""

    def __init__(self, key: str) -> None:
        self._key = key

    def spare_key(self, _spec: MachineSpec) -> str:
        return self._key

    def clone(self, spec: MachineSpec, *, deadline: Deadline) -> Running:
        del deadline
        return Running(spec.run_dir)


def _echo(end: socket.socket) -> None:
    while data := end.recv(100):
        end.sendall(data)


def main(host: str, key: str, limit_s: str, owner: str) -> None:
    """Keep one spare."""
    units: Mapping[str, Any] = {}
    spec = MachineSpec(
        host=cast("Any", SimpleNamespace(name="h", units=units)),
        system=Path("/nix/store/x"),
        run_dir=Path("/nowhere"),
        boot_timeout_s=60.0,
    )
    order = SpareOrder(
        spec=spec,
        options=VmOptions(),
        secrets=b"",
        host=host,
        limit_s=float(limit_s),
        owner=int(owner) or None,
    )
    Keeper(order, cast("Any", Backend(key))).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
