"""What a host declares, as typed values: each knows how it stands in the document of
``nix/expressions/facts.nix``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import msgspec

__all__ = [
    "Declared",
    "FileSystem",
    "Firewall",
    "InitrdSsh",
    "InterfacePorts",
    "LuksDevice",
    "OllamaSettings",
    "PortRange",
    "SoftwareRaid",
    "SwapDevice",
    "User",
    "VmSettings",
    "Zram",
]

Json = Any

_DEFAULT_OLLAMA_PORT = 11434


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """One option of the evaluated config.

    :param path: option path as written in a module, for example ``services.openssh.enable``.
    :param state: ``present``; ``absent`` (this release has no such option); ``unreadable``
        (evaluating it throws).
    :param value: its value as JSON, derivations as store paths, functions as ``None``.
    """

    path: str
    state: str
    value: Json = None

    @property
    def present(self) -> bool:
        """Whether the option exists and could be read."""
        return self.state == "present"


class PortRange(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Ports `first` to `last`, both included."""

    first: int
    last: int

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and self.first <= port <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


class InterfacePorts(msgspec.Struct, frozen=True, kw_only=True):
    """Ports that the firewall opens, on all interfaces or on one; single ports are ranges of
    one.
    """

    tcp: tuple[PortRange, ...] = ()
    udp: tuple[PortRange, ...] = ()

    @classmethod
    def parse(cls, data: Mapping[str, Json]) -> Self:
        """Read ``allowed{TCP,UDP}Ports`` and ``allowed{TCP,UDP}PortRanges``."""
        return cls(
            tcp=_ranges(data["allowedTCPPorts"], data["allowedTCPPortRanges"]),
            udp=_ranges(data["allowedUDPPorts"], data["allowedUDPPortRanges"]),
        )


class Firewall(msgspec.Struct, frozen=True, kw_only=True):
    """``networking.firewall``: `backend` is ``nftables`` or ``iptables``."""

    enabled: bool
    backend: str
    everywhere: InterfacePorts
    interfaces: Mapping[str, InterfacePorts]
    trusted_interfaces: tuple[str, ...]
    allow_ping: bool
    reject_packets: bool

    @classmethod
    def parse(cls, data: Mapping[str, Json]) -> Self:
        """Read what ``facts.nix`` says of ``networking.firewall``."""
        return cls(
            enabled=data["enable"],
            backend=data["backend"],
            everywhere=InterfacePorts.parse(data),
            interfaces={k: InterfacePorts.parse(v) for k, v in data["interfaces"].items()},
            trusted_interfaces=tuple(data["trustedInterfaces"]),
            allow_ping=data["allowPing"],
            reject_packets=data["rejectPackets"],
        )

    @classmethod
    def none(cls) -> Self:
        """Return what a host has without a firewall that could be read."""
        return cls(
            enabled=False,
            backend="iptables",
            everywhere=InterfacePorts(),
            interfaces={},
            trusted_interfaces=(),
            allow_ping=True,
            reject_packets=False,
        )

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


class Zram(msgspec.Struct, frozen=True, kw_only=True):
    """``zramSwap``: `memory_percent` of RAM, at most `memory_max_bytes`, on `device_count`
    devices.
    """

    algorithm: str
    memory_percent: int
    memory_max_bytes: int | None
    priority: int
    device_count: int

    @classmethod
    def parse(cls, data: Mapping[str, Json] | None) -> Self | None:
        """Read what ``facts.nix`` says of ``zramSwap``; ``None`` where it is off."""
        if data is None:
            return None
        return cls(
            algorithm=data["algorithm"],
            memory_percent=data["memoryPercent"],
            memory_max_bytes=data["memoryMax"],
            priority=data["priority"],
            device_count=data["swapDevices"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One entry of ``users.users``; `uid` is ``None`` where NixOS allocates it, and `name` what the
    account is called, by default as the entry is. One that is not `enabled` has no account; of one who
    `lingers` the manager runs from the boot on.
    """

    name: str
    uid: int | None
    is_normal: bool
    is_system: bool
    group: str
    extra_groups: tuple[str, ...]
    home: str
    shell: str | None
    authorized_keys: int
    enabled: bool = True
    lingers: bool = False

    @classmethod
    def parse(cls, name: str, data: Mapping[str, Json]) -> Self:
        """Read what ``facts.nix`` says of one entry of ``users.users``."""
        return cls(
            name=data.get("name", name),
            uid=data["uid"],
            is_normal=data["isNormalUser"],
            is_system=data["isSystemUser"],
            group=data["group"],
            extra_groups=tuple(data["extraGroups"]),
            home=data["home"],
            shell=data["shell"],
            authorized_keys=data["authorizedKeys"],
            enabled=data.get("enabled", True),
            lingers=data.get("linger", False),
        )


class OllamaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``services.ollama`` where it is enabled; `models` are those that it declares to load."""

    host: str
    port: int
    models: tuple[str, ...]
    open_firewall: bool
    acceleration: str | None
    environment: Mapping[str, str]

    @classmethod
    def parse(cls, data: Mapping[str, Json] | None) -> Self | None:
        """Read what ``facts.nix`` says of ``services.ollama``; ``None`` where it is off."""
        if data is None:
            return None
        # Up to 24.05 one option holds both: services.ollama.listenAddress = "127.0.0.1:11434".
        address, _, port = (data["listenAddress"] or "").rpartition(":")
        return cls(
            host=(data["host"] or address or "127.0.0.1").strip("[]"),
            port=data["port"] or (int(port) if port.isdecimal() else _DEFAULT_OLLAMA_PORT),
            models=tuple(data["loadModels"]),
            open_firewall=data["openFirewall"],
            acceleration=data["acceleration"],
            environment=data["environmentVariables"],
        )


class FileSystem(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of ``fileSystems``."""

    mount_point: str
    device: str | None
    fs_type: str
    options: tuple[str, ...]

    @classmethod
    def parse(cls, _name: str, data: Mapping[str, Json]) -> Self:
        """Read what ``facts.nix`` says of one entry of ``fileSystems``."""
        return cls(
            mount_point=data["mountPoint"],
            device=data["device"],
            fs_type=data["fsType"],
            options=tuple(data["options"]),
        )


class SwapDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of ``swapDevices``.

    :param size_mib: of a file that NixOS makes, ``None`` for what has to be there.
    """

    device: str
    size_mib: int | None = None
    randomly_encrypted: bool = False

    @classmethod
    def parse_all(cls, entries: Sequence[Mapping[str, Json]]) -> tuple[Self, ...]:
        """Read what ``facts.nix`` says of them all."""
        return tuple(
            cls(
                device=data["device"],
                size_mib=data["size"],
                randomly_encrypted=data["randomlyEncrypted"],
            )
            for data in entries
        )


class LuksDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of ``boot.initrd.luks.devices``.

    :param name: of the opened device, below ``/dev/mapper``.
    :param key_file: where stage 1 reads its key, ``""`` where it asks for a passphrase.
    :param header: where its header lies, ``""`` for on the device.
    :param headless: it has no key file, and nobody may be asked for a passphrase.
    :param options: of its line in crypttab(5), those of ``crypttabExtraOpts`` where stage 1 reads them.
    """

    name: str
    device: str
    key_file: str = ""
    header: str = ""
    headless: bool = False
    options: tuple[str, ...] = ()

    @classmethod
    def parse_all(cls, entries: Mapping[str, Mapping[str, Json]]) -> dict[str, Self]:
        """Read what ``facts.nix`` says of them all."""
        return {
            key: cls(
                name=data["name"],
                device=data["device"],
                key_file=data["keyFile"],
                header=data["header"],
                headless=data["headless"] and not data["keyFile"],
                options=tuple(data["options"]),
            )
            for key, data in entries.items()
        }


class InitrdSsh(msgspec.Struct, frozen=True, kw_only=True):
    """``boot.initrd.network.ssh`` where it is on: stage 1 takes passphrases over the network.

    :param host_keys: where they lie in the initrd.
    :param by_systemd: whether systemd is stage 1.
    """

    port: int
    host_keys: tuple[str, ...]
    by_systemd: bool

    @classmethod
    def parse(cls, data: Mapping[str, Json]) -> Self:
        """Read what ``facts.nix`` says of it."""
        return cls(
            port=data["port"],
            host_keys=tuple(data["hostKeys"]),
            by_systemd=data["bySystemd"],
        )


class SoftwareRaid(msgspec.Struct, frozen=True, kw_only=True):
    """``boot.swraid``: whether arrays of mdraid are assembled, and mdadm.conf(5)."""

    enable: bool
    conf: str

    @classmethod
    def parse(cls, data: Mapping[str, Json]) -> Self:
        """Read what ``facts.nix`` says of it."""
        return cls(enable=data["enable"], conf=data["mdadmConf"])


class VmSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the host's own VM variant asks for."""

    memory_mib: int
    cores: int
    graphics: bool
    restrict_network: bool

    @classmethod
    def parse(cls, data: Mapping[str, Json]) -> Self | None:
        """Read what ``facts.nix`` says of the VM variant; ``None`` where the release has none."""
        if data["memorySize"] is None:
            return None
        return cls(
            memory_mib=data["memorySize"],
            cores=data["cores"],
            graphics=bool(data["graphics"]),
            restrict_network=data["restrictNetwork"],
        )


def _ranges(ports: Sequence[int], ranges: Sequence[Mapping[str, int]]) -> tuple[PortRange, ...]:
    singles = [PortRange(first=port, last=port) for port in ports]
    spans = [PortRange(first=r["from"], last=r["to"]) for r in ranges]
    return tuple(sorted({*singles, *spans}))
