"""``--hosts=nixos://name``: testinfra's own host specifications, for machines that a session
knows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import testinfra.backend
from testinfra.host import Host

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.base import Machine
from pytest_nixos.testinfra.backend import NixosBackend
from pytest_nixos.testinfra.host import NixosHost

__all__ = ["SchemeBackend", "nixos_scheme"]

FindMachine = Callable[[str], Machine | None]
_SCHEME = "nixos"


class SchemeBackend(NixosBackend):
    """What testinfra makes for ``nixos://name`` inside :func:`nixos_scheme`."""

    find_machine: ClassVar[FindMachine | None] = None

    def __init__(self, hostname: str, **_spec: Any) -> None:
        find = type(self).find_machine
        machine = find(hostname) if find is not None else None
        if machine is None:
            raise MachineError(
                f"{_SCHEME}://{hostname}: this session has no machine of that name",
                remedy="name a host given by --nixos-flake",
            )
        super().__init__(hostname, source=machine)

    def set_host(self, host: Host) -> None:
        # testinfra makes a plain Host and offers no way to choose the class.
        host.__class__ = NixosHost
        super().set_host(host)


@contextlib.contextmanager
def nixos_scheme(find_machine: FindMachine) -> Iterator[None]:
    """Let testinfra understand ``nixos://name`` while the context lasts.

    :param find_machine: gives the machine of that name, or ``None``.
    """
    SchemeBackend.find_machine = staticmethod(find_machine)
    testinfra.backend.BACKENDS[_SCHEME] = f"{__name__}.{SchemeBackend.__name__}"
    try:
        yield
    finally:
        SchemeBackend.find_machine = None
        del testinfra.backend.BACKENDS[_SCHEME]
        # testinfra keeps every host that it made, by specification, for the life of the process.
        single, several = Host._host_cache, Host._hosts_cache  # noqa: SLF001
        for key in [key for key in single if _is_ours(key[0])]:
            del single[key]
        for keys in [keys for keys in several if any(map(_is_ours, keys[0]))]:
            del several[keys]


def _is_ours(specification: str) -> bool:
    return specification.startswith(f"{_SCHEME}://")
