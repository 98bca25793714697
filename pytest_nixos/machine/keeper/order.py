"""What a keeper is told: which machine to have ready, and for how long."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from pathlib import Path

import msgspec
from msgspec.structs import replace

from pytest_nixos.local.dirs import cache_directory, make_private
from pytest_nixos.machine.base import Machine, MachineSpec
from pytest_nixos.machine.vm.backend import VmBackend
from pytest_nixos.machine.vm.launcher import VmOptions

__all__ = ["SpareOrder", "log_file", "start_keeper"]

_MODULE = "pytest_nixos.machine.keeper"
# Of the run that orders, and not of a process that outlives it.
_OF_THE_RUN = ("PYTEST_CURRENT_TEST", "PYTEST_VERSION", "PYTEST_XDIST_WORKER")


class SpareOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One spare.

    :param spec: of the machine; its directory and its secrets' file are those of another one.
    :param secrets: the content of that file.
    :param host: names the host among all of this user: of each one spare waits.
    :param limit_s: seconds after which it ends where nobody takes it.
    :param owner: process with which it ends too, ``None`` for none.
    """

    spec: MachineSpec
    options: VmOptions
    secrets: bytes
    host: str
    limit_s: float
    owner: int | None = None

    @classmethod
    def of(
        cls, machine: Machine, *, host: str, limit_s: float, owner: int | None
    ) -> SpareOrder | None:
        """Order a machine like one that runs; ``None`` where it has no snapshot to start from."""
        backend = machine.backend
        if type(backend) is not VmBackend or not machine.can_reset:
            return None
        spec = replace(machine.spec, recall=None)
        return cls(
            spec=spec,
            options=replace(backend.options, takes_spares=False),
            secrets=b"" if spec.secrets is None else spec.secrets.path.read_bytes(),
            host=host,
            limit_s=limit_s,
            owner=owner,
        )


def _pickled(order: SpareOrder) -> bytes:
    try:
        return pickle.dumps(order)
    except (pickle.PicklingError, TypeError, AttributeError) as err:
        # What a plugin's hook has put into the machine's description stays in this process.
        raise OSError(f"the machine cannot be described to another process: {err}") from err


def log_file() -> Path:
    """Return where the last keeper of this user says why it made no spare."""
    return cache_directory("spares") / "keeper.log"


def start_keeper(order: SpareOrder) -> None:
    """Start the process that makes the spare; it goes on when this one ends.

    :raises OSError: if it cannot be started.
    """
    make_private(cache_directory("spares"))
    package = Path(__file__).parents[3]
    environment = {name: value for name, value in os.environ.items() if name not in _OF_THE_RUN}
    paths = [str(package), *filter(None, [environment.get("PYTHONPATH", "")])]
    environment |= {
        "PYTHONPATH": os.pathsep.join(paths),
        # Nix keeps what a running process's environment names (its findRuntimeRoots).
        "PYTEST_NIXOS_SPARE_OF": str(order.spec.system),
    }
    told = os.memfd_create("spare-order")
    try:
        os.write(told, _pickled(order))
        os.lseek(told, 0, os.SEEK_SET)
        log = os.open(log_file(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", _MODULE],
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, told, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                    *((os.POSIX_SPAWN_CLOSE, one) for one in _inherited()),
                ],
                setsid=True,
            )
        finally:
            os.close(log)
    finally:
        os.close(told)


def _inherited() -> list[int]:
    """Return the descriptors that a program started here has beside its standard streams: whoever
    reads the other end of one would wait for the spare's end.
    """
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are wanted, no paths
        with contextlib.suppress(OSError):  # that of the directory itself
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found
