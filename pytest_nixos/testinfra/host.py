"""testinfra's ``Host`` with answers that are right on NixOS."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

import testinfra.modules
from testinfra.host import Host

from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.command import Transport
from pytest_nixos.machine.user_session import UserSession
from pytest_nixos.testinfra.backend import NixosBackend
from pytest_nixos.testinfra.devices import NixosBlockDevice, NixosMountPoint
from pytest_nixos.testinfra.firewall import Nftables, NixosIptables
from pytest_nixos.testinfra.interface import NixosInterface
from pytest_nixos.testinfra.kernel import NixosSysctl
from pytest_nixos.testinfra.package import NixosPackage
from pytest_nixos.testinfra.process import NixosProcess
from pytest_nixos.testinfra.service import NixosService
from pytest_nixos.testinfra.socket import NixosSocket
from pytest_nixos.testinfra.user import NixosUser

__all__ = ["MODULES", "NixosHost", "make_host"]

#: Modules that testinfra gets wrong on NixOS, or lacks; it serves the others itself.
MODULES: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "block_device": NixosBlockDevice,
        "interface": NixosInterface,
        "iptables": NixosIptables,
        "mount_point": NixosMountPoint,
        "nftables": Nftables,
        "package": NixosPackage,
        "process": NixosProcess,
        "service": NixosService,
        "socket": NixosSocket,
        "sysctl": NixosSysctl,
        "user": NixosUser,
    }
)

# Where NixOS keeps programs; the PATH of a command channel need not hold them.
_PROGRAM_DIRS = (
    "/run/wrappers/bin",
    "/run/current-system/sw/bin",
    "/run/current-system/sw/sbin",
)


class NixosHost(Host):
    """What the ``host`` fixture gives.

    Modules are made anew in each epoch of the machine, because they remember what they read (the
    system's release, its closure) and a switch or rollback makes that untrue.
    """

    has_command_v = True  # bash always has it; testinfra would ask the guest

    def __init__(self, backend: NixosBackend) -> None:
        super().__init__(backend)

    def exists(self, command: str) -> bool:
        """Return whether `command` is on PATH or in the system's profile."""
        with contextlib.suppress(ValueError):
            self.find_command(command)
            return True
        return False

    def find_command(self, command: str, extrapaths: Iterable[str] = _PROGRAM_DIRS) -> str:
        """Return the path of `command`, from PATH or else from `extrapaths`.

        :raises ValueError: if it is in neither.
        """
        candidates = [f"{directory}/{command}" for directory in extrapaths]
        words = " ".join(["%s"] * len(candidates))
        out = self.run(
            "command -v -- %s || { for path in "
            + (words or "''")
            + '; do if [ -f "$path" ] && [ -x "$path" ]; then echo "$path"; exit; fi; done; false; }',
            command,
            *candidates,
        )
        if out.rc != 0:
            raise ValueError(f'cannot find "{command}" command')
        return str(out.stdout.rstrip("\r\n"))

    def __getattr__(self, name: str) -> Any:
        if name not in MODULES and name not in testinfra.modules.modules:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        modules = self._modules_of_this_epoch()
        if name not in modules:
            source = MODULES.get(name) or testinfra.modules.get_module_class(name)
            modules[name] = source.get_module(self)
        return modules[name]

    def _modules_of_this_epoch(self) -> dict[str, Any]:
        # Kept in the instance's dictionary and made here, not in __init__, because a host that
        # testinfra itself made (``--hosts=nixos://name``) becomes one of ours after its __init__
        # ran.
        epoch = self.backend.epoch if isinstance(self.backend, NixosBackend) else 0
        kept = self.__dict__.get("_modules")
        if kept is None or kept[0] != epoch:
            kept = self.__dict__["_modules"] = (epoch, {})
        modules: dict[str, Any] = kept[1]
        return modules


def make_host(source: Machine | UserSession | Transport, *, name: str | None = None) -> NixosHost:
    """Make a testinfra host over a machine, one of its users, or a bare transport.

    :param name: shown in test ids; a machine's own name unless given.
    """
    shown = name or (source.name if isinstance(source, Machine | UserSession) else "guest")
    backend = NixosBackend(shown, source=source)
    host = NixosHost(backend)
    backend.set_host(host)
    return host
