"""What a login asks of its machine, which stands above this room."""

from __future__ import annotations

from typing import Protocol

from pytest_nixos.backend_name import BackendName
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import Transport

__all__ = ["AskedMachine"]


class _Named(Protocol):
    @property
    def name(self) -> BackendName: ...


class AskedMachine(Protocol):
    """The part of a :class:`~pytest_nixos.machine.base.Machine` that logins use."""

    @property
    def name(self) -> str: ...

    @property
    def backend(self) -> _Named: ...

    @property
    def running(self) -> object: ...

    @property
    def transport(self) -> Transport: ...

    def deadline(self, limit_s: float) -> Deadline: ...
