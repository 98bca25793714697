"""The host config: what one ``nixosConfigurations`` entry *declares*, as typed facts.

The facts come as one JSON document from ``nix/expressions/host-config.nix`` (see :mod:`pytest_nixos.nix.evaluation`), which
:mod:`pytest_nixos.nix.host_document` parses once, at the edge. Facts that a release does not have are ``None`` or empty, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pytest_nixos.nix.refs import HostRef

__all__ = [
    "Declared",
    "FileSystem",
    "Firewall",
    "HostConfig",
    "InterfacePorts",
    "OllamaSettings",
    "PortRange",
    "Unit",
    "User",
    "VmSettings",
    "Zram",
]

Json = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One option of the evaluated config.

    :param path: option path as written in a module, for example ``services.openssh.enable``.
    :param state: ``present``; ``absent`` (this release has no such option); ``unreadable`` (evaluating it throws).
    :param value: its value as JSON, derivations as store paths, functions as ``None``.
    """

    path: str
    state: str
    value: Json = None

    @property
    def present(self) -> bool:
        """Whether the option exists and could be read."""
        return self.state == "present"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PortRange:
    """Ports `first` to `last`, both included."""

    first: int
    last: int

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and self.first <= port <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfacePorts:
    """Ports that the firewall opens, on all interfaces or on one; single ports are ranges of one."""

    tcp: tuple[PortRange, ...] = ()
    udp: tuple[PortRange, ...] = ()

    @classmethod
    def parse(cls, data: Mapping[str, Json]) -> Self:
        """Read ``allowed{TCP,UDP}Ports`` and ``allowed{TCP,UDP}PortRanges``."""
        return cls(
            tcp=_ranges(data["allowedTCPPorts"], data["allowedTCPPortRanges"]),
            udp=_ranges(data["allowedUDPPorts"], data["allowedUDPPortRanges"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewall:
    """``networking.firewall``: `backend` is ``nftables`` or ``iptables``."""

    enabled: bool
    backend: str
    everywhere: InterfacePorts
    interfaces: Mapping[str, InterfacePorts]
    trusted_interfaces: tuple[str, ...]
    allow_ping: bool
    reject_packets: bool

    def allows_tcp(self, port: int, *, interface: str) -> bool:
        """Whether the declaration lets a stranger reach TCP `port` on `interface`."""
        return self._allows("tcp", port, interface)

    def allows_udp(self, port: int, *, interface: str) -> bool:
        """Whether the declaration lets a stranger reach UDP `port` on `interface`."""
        return self._allows("udp", port, interface)

    def _allows(self, protocol: str, port: int, interface: str) -> bool:
        if not self.enabled or interface in self.trusted_interfaces:
            return True
        opened = [self.everywhere, self.interfaces.get(interface, InterfacePorts())]
        return any(port in r for ports in opened for r in getattr(ports, protocol))


@dataclass(frozen=True, slots=True, kw_only=True)
class Zram:
    """``zramSwap``: `memory_percent` of RAM, at most `memory_max_bytes`, on `device_count` devices."""

    algorithm: str
    memory_percent: int
    memory_max_bytes: int | None
    priority: int
    device_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One declared systemd unit.

    :param name: with suffix, ``ollama.service``.
    :param settings: section to key to values in order, as text, as they stand in the unit file
        (``{"Service": {"ProtectSystem": ("strict",)}}``); booleans as ``true``/``false``.
    :param wanted_by: units that pull it in (``wantedBy`` and ``requiredBy``).
    """

    name: str
    enabled: bool
    settings: Mapping[str, Mapping[str, tuple[str, ...]]]
    wanted_by: tuple[str, ...]

    def setting(self, section: str, key: str) -> tuple[str, ...]:
        """Return the declared values of one key, empty if it is not declared."""
        return self.settings.get(section, {}).get(key, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One entry of ``users.users``; `uid` is ``None`` where NixOS allocates it."""

    name: str
    uid: int | None
    is_normal: bool
    is_system: bool
    group: str
    extra_groups: tuple[str, ...]
    home: str
    shell: str | None
    authorized_keys: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaSettings:
    """``services.ollama`` where it is enabled; `models` are those that it declares to load."""

    host: str
    port: int
    models: tuple[str, ...]
    open_firewall: bool
    acceleration: str | None
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSystem:
    """One entry of ``fileSystems``."""

    mount_point: str
    device: str | None
    fs_type: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSettings:
    """What the host's own VM variant asks for."""

    memory_mib: int
    cores: int
    graphics: bool
    restrict_network: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """The evaluated facts of one host.

    :param options: every option path that was asked for, see :class:`Declared`.
    :param changed: option paths whose value differs between the host as it is and the machine that is
        started (the VM variant or container plus the instrumentation): path to (declared, in the machine).
    :param backend: ``vm`` or ``container``: what `derivation` builds.
    :param unreadable: option paths of facts that throw, or that Nix cannot evaluate; such a fact is empty here.
    :param derivation: store path of the derivation that builds the machine (the run script's package for
        a VM, the toplevel for a container).
    :param output: store path that the derivation builds.
    :param toplevel: store path of the system that the machine boots.
    :param program: path of the run script inside that package (``bin/run-<name>-vm``), ``""`` for a container.
    :param snapshot_refusal: why the machine's state cannot be saved, ``""`` where it can (a VM made for it).
    """

    ref: HostRef
    host_name: str
    system_name: str
    system: str
    state_version: str | None
    release: str
    version: str
    is_container: bool
    firewall: Firewall
    sysctls: Mapping[str, str]
    zram: Zram | None
    units: Mapping[str, Unit]
    users: Mapping[str, User]
    groups: tuple[str, ...]
    ollama: OllamaSettings | None
    kernel_params: tuple[str, ...]
    file_systems: Mapping[str, FileSystem]
    swap_devices: tuple[str, ...]
    warnings: tuple[str, ...]
    vm: VmSettings | None
    options: Mapping[str, Declared]
    changed: Mapping[str, tuple[Json, Json]]
    derivation: str
    program: str
    output: str = ""
    toplevel: str = ""
    backend: str = "vm"
    snapshot_refusal: str = "it was not asked for"
    unreadable: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The attribute name under ``nixosConfigurations``."""
        return self.ref.attr

    def option(self, path: str) -> Declared:
        """Return one option that was asked for at evaluation; others count as ``absent``."""
        return self.options.get(path, Declared(path=path, state="absent"))


def _ranges(ports: Sequence[int], ranges: Sequence[Mapping[str, int]]) -> tuple[PortRange, ...]:
    singles = [PortRange(first=port, last=port) for port in ports]
    spans = [PortRange(first=r["from"], last=r["to"]) for r in ranges]
    return tuple(sorted({*singles, *spans}))
