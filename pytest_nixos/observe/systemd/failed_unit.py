"""A unit that failed, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Self

import msgspec

from pytest_nixos.nix.config.declared import Unit
from pytest_nixos.nix.config.host_facts import HostConfig

__all__ = ["PLAIN", "FailedUnit", "UnitFailure"]

#: What a guest says is untrusted: a name or path from its journal is put into Nix text only so.
PLAIN = re.compile(r"[\w@./:+-]+")


class UnitFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a service's last run failed.

    :param why: a clause about it, ``""`` where only its own words may tell.
    :param remedy: module text that mends it, ``""`` where nobody knows one.
    """

    why: str = ""
    remedy: str = ""


class FailedUnit(msgspec.Struct, frozen=True, kw_only=True):
    """A unit that failed, with what is declared of it.

    :param name: with its suffix.
    :param unit: as declared, by its template too; ``None`` if the host declares none.
    :param said: lines of its journal, oldest first.
    """

    name: str
    unit: Unit | None
    host: HostConfig
    said: Sequence[str]

    @classmethod
    def of(cls, name: str, host: HostConfig, said: Sequence[str]) -> Self:
        """Look up what `host` declares of it."""
        unit = host.units.get(name) or host.units.get(_template(name))
        return cls(name=name, unit=unit, host=host, said=said)

    @property
    def option(self) -> str:
        """Its option, up to the name of the service."""
        stem = (self.unit.name if self.unit is not None else self.name).rpartition(".")[0]
        return f'systemd.services."{stem}"'

    @property
    def config(self) -> str:
        """The option of its ``[Service]`` section."""
        return f"{self.option}.serviceConfig"

    def told(self, what: re.Pattern[str]) -> re.Match[str] | None:
        """Return the last line of its journal that says such a thing."""
        return next((m for line in reversed(self.said) if (m := what.search(line))), None)

    def last(self, key: str) -> str:
        """Return the value of a key of its ``[Service]`` section that counts, ``""`` for none."""
        values = self.unit.setting("Service", key) if self.unit is not None else ()
        return values[-1] if values else ""


def _template(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    return f"{stem.partition('@')[0]}@.{suffix}" if "@" in stem else name
