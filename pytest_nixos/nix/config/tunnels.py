"""WireGuard interfaces as a host's config speaks of them, see ``expressions/tunnels.nix``."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
)
from typing import Any, Self

import msgspec
from msgspec.structs import replace

__all__ = ["Address", "Endpoint", "Tunnel", "TunnelPeer", "parse_tunnels", "public_key_of"]

Json = Any
Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface

NETWORKD = "systemd.network.netdevs"
_KEY_BYTES = 32  # Curve25519, RFC 7748


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a peer is reached.

    :param host: a name, or an address.
    :param port: UDP.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read ``host:port`` or ``[address]:port``; ``None`` where it is neither."""
        host, colon, port = text.rpartition(":")
        if not (host and colon and port.isdecimal()):
            return None
        return cls(host=host.removeprefix("[").removesuffix("]"), port=int(port))

    @property
    def address(self) -> Address | None:
        """The address, ``None`` where the host is a name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None


class TunnelPeer(msgspec.Struct, frozen=True, kw_only=True):
    """A peer as one side declares it.

    :param public_key: base64.
    :param preshared_file: ``""`` where there is none.
    :param has_inline_preshared: whether a preshared key stands in the config.
    :param allowed_ips: which addresses are reached through it, as they are written.
    :param resolved: addresses that ``networking.hosts`` gives the endpoint's name.
    """

    public_key: str
    preshared_file: str = ""
    has_inline_preshared: bool = False
    allowed_ips: tuple[str, ...] = ()
    endpoint: Endpoint | None = None
    resolved: tuple[str, ...] = ()

    @property
    def short(self) -> str:
        """Its key, as short as `wg` users tell keys apart."""
        return f"{self.public_key[:8]}…"

    @property
    def allowed(self) -> tuple[Interface, ...]:
        """Which addresses are reached through it; each with the address as it is written."""
        return tuple(map(ip_interface, self.allowed_ips))

    @property
    def found(self) -> tuple[Address, ...]:
        """Addresses that ``networking.hosts`` gives the endpoint's name."""
        return tuple(map(ip_address, self.resolved))

    def allows(self, address: Address) -> bool:
        """Whether an address is reached through it."""
        return any(address in interface.network for interface in self.allowed)


class Tunnel(msgspec.Struct, frozen=True, kw_only=True):
    """A WireGuard interface.

    :param tree: the option that holds it, such as ``networking.wireguard.interfaces``.
    :param trees: all options that hold one of its name: nixpkgs may make one from the other.
    :param port: on which it listens, ``None`` where the kernel chooses.
    :param key_file: of its private key, ``""`` where there is none.
    :param has_inline_key: whether its private key stands in the config.
    :param inline_public: the public half of that key, ``""`` where it is no key; nothing here holds
        the private one.
    :param config_file: of wg-quick, in place of all else; ``""`` for none.
    """

    tree: str
    trees: tuple[str, ...]
    name: str
    addresses: tuple[str, ...] = ()
    port: int | None = None
    key_file: str = ""
    has_inline_key: bool = False
    inline_public: str = ""
    config_file: str = ""
    peers: tuple[TunnelPeer, ...] = ()

    @property
    def ips(self) -> tuple[Address, ...]:
        """Its addresses as values."""
        return tuple(map(ip_address, self.addresses))

    @property
    def is_networkd(self) -> bool:
        """Whether systemd-networkd makes it, and reads its files as its own user."""
        return self.tree == NETWORKD

    @property
    def files(self) -> tuple[str, ...]:
        """Files that hold its keys."""
        paths = (self.key_file, *(peer.preshared_file for peer in self.peers))
        return tuple(path for path in paths if path)


def parse_tunnels(data: Iterable[Mapping[str, Json]]) -> tuple[Tunnel, ...]:
    """Read what ``tunnels.nix`` says of a host. Of an interface that one option is made from
    another's, what networkd gets counts.
    """
    found: dict[str, Tunnel] = {}
    for entry in data:
        tunnel = _tunnel(entry)
        before = found.get(tunnel.name)
        trees = (*(before.trees if before is not None else ()), tunnel.tree)
        found[tunnel.name] = replace(tunnel, trees=trees)
    return tuple(found.values())


def public_key_of(private: str) -> str | None:
    """Return the public half of a private key; ``None`` where the text is no key.

    :param private: base64, as ``wg genkey`` writes it.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    try:
        data = base64.b64decode(private.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(data) != _KEY_BYTES:
        return None
    public = X25519PrivateKey.from_private_bytes(data).public_key().public_bytes_raw()
    return base64.b64encode(public).decode()


def _tunnel(data: Mapping[str, Json]) -> Tunnel:
    return Tunnel(
        tree=data["tree"],
        trees=(),
        name=data["name"],
        addresses=tuple(str(interface.ip) for interface in _interfaces(data["addresses"])),
        port=int(data["port"]) if data["port"].isdecimal() else None,
        key_file=data["keyFile"],
        has_inline_key=bool(data["key"]),
        inline_public=(public_key_of(data["key"]) or "") if data["key"] else "",
        config_file=data["configFile"],
        peers=tuple(_peer(peer) for peer in data["peers"] if peer["key"]),
    )


def _peer(data: Mapping[str, Json]) -> TunnelPeer:
    return TunnelPeer(
        public_key=data["key"],
        preshared_file=data["presharedFile"],
        has_inline_preshared=data["preshared"],
        allowed_ips=tuple(map(str, _interfaces(data["ips"]))),
        endpoint=Endpoint.parse(data["endpoint"]),
        resolved=tuple(str(interface.ip) for interface in _interfaces(data["found"])),
    )


def _interfaces(texts: Iterable[str]) -> tuple[Interface, ...]:
    """Leave out what is no address: that is for the host's own tools."""
    found = []
    for text in texts:
        try:
            found.append(ip_interface(text))
        except ValueError:
            continue
    return tuple(found)
