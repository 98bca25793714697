"""A unit that failed, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Self

import msgspec

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.unit import Unit, parse_boolean

__all__ = ["PLAIN", "FailedUnit", "UnitFailure", "having_made"]

#: What a guest says is untrusted: a name or path from its journal is put into Nix text only so.
PLAIN = re.compile(r"[\w@./:+-]+")
# Directories that systemd makes, for the service's account, before it looks at anything else;
# systemd.exec(5), RuntimeDirectory=.
_MADE_BELOW = {
    "/var/lib/": "StateDirectory",
    "/var/cache/": "CacheDirectory",
    "/var/log/": "LogsDirectory",
    "/run/": "RuntimeDirectory",
}


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
    :param listeners: port to the units that listen there; empty if nobody asked.
    """

    name: str
    unit: Unit | None
    host: HostConfig
    said: Sequence[str]
    listeners: Mapping[int, Sequence[str]] = msgspec.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        name: str,
        host: HostConfig,
        said: Sequence[str],
        listeners: Mapping[int, Sequence[str]],
    ) -> Self:
        """Look up what `host` declares of it."""
        unit = host.units.get(name) or host.units.get(_template(name))
        return cls(name=name, unit=unit, host=host, said=said, listeners=listeners)

    @property
    def stem(self) -> str:
        """Its name without the suffix, as it is declared."""
        return (self.unit.name if self.unit is not None else self.name).rpartition(".")[0]

    @property
    def option(self) -> str:
        """Its option, up to the name of the service."""
        return f'systemd.services."{self.stem}"'

    @property
    def config(self) -> str:
        """The option of its ``[Service]`` section."""
        return f"{self.option}.serviceConfig"

    def told(self, what: re.Pattern[str]) -> re.Match[str] | None:
        """Return the last line of its journal that says such a thing."""
        return next((m for line in reversed(self.said) if (m := what.search(line))), None)

    def listening(self, port: int) -> Sequence[str]:
        """Return the units that listen on a port, those of a socket unit by its name."""
        found = set(self.listeners.get(port, ()))
        if not found:
            return []
        # Of a socket unit it is systemd itself that listens.
        by_socket = [
            name
            for name, unit in self.host.units.items()
            for text in (
                *unit.setting("Socket", "ListenStream"),
                *unit.setting("Socket", "ListenDatagram"),
            )
            if unit.enabled and text.rpartition(":")[2] == str(port)
        ]
        return sorted({*(found - {"init.scope", ""}), *by_socket} - {self.name})

    def words(self, *keys: str) -> str:
        """Return all that is declared in some keys of its ``[Service]`` section, in one text."""
        unit = self.unit
        return " ".join(
            text for key in keys if unit is not None for text in unit.setting("Service", key)
        )

    def last(self, key: str) -> str:
        """Return the value of a key of its ``[Service]`` section that counts, ``""`` for none."""
        values = self.unit.setting("Service", key) if self.unit is not None else ()
        return values[-1] if values else ""

    def is_on(self, key: str) -> bool:
        """Whether a switch of its ``[Service]`` section is on."""
        return self.unit is not None and self.unit.is_on("Service", key)

    def is_off(self, key: str) -> bool:
        """Whether it is off, or not declared."""
        value = self.last(key)
        return not value or parse_boolean(value) is False


def _template(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    return f"{stem.partition('@')[0]}@.{suffix}" if "@" in stem else name


def having_made(failed: FailedUnit, path: str) -> str:
    """Return the module text that has a directory made before the service starts."""
    if not PLAIN.fullmatch(path):
        return ""
    for parent, key in _MADE_BELOW.items():
        if path.startswith(parent) and not failed.last(key):
            return f'{failed.config}.{key} = "{path.removeprefix(parent)}";'
    if failed.is_on("DynamicUser"):
        return (
            f"# {failed.name} runs under DynamicUser=, whose account owns nothing but what systemd makes for it, below\n"
            f"# /var/lib by {failed.config}.StateDirectory: keep {path} there, or run it as an account that is declared."
        )
    owner = failed.last("User")
    owner = owner if PLAIN.fullmatch(owner) else "root"
    rule = f'systemd.tmpfiles.settings."{failed.name.rpartition(".")[0]}"."{path}".d'
    return f'{rule} = {{ mode = "0750"; user = "{owner}"; }};'
