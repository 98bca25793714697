"""What Proxmox VE gives a container of NixOS, as ``pct create`` is told it.

Before each start Proxmox writes three files into the container's root directory
(``PVE::LXC::Setup::NixOS`` and ``Base`` of pve-container, read at 94f5585, June 2026): the network
file that systemd-networkd reads, the host name, and the name servers. Everything else about the
network is left to the container.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address
from typing import Self

import msgspec

from pytest_nixos.errors import SettingsError

__all__ = ["UNPRIVILEGED_IDS", "Pct"]

#: User ids that an unprivileged container of Proxmox has (``lxc.idmap = u 0 100000 65536``).
UNPRIVILEGED_IDS = 65536

_CARD = "eth0"
_MEMORY_MIB = 512  # where --memory is left out
_LEAST_MIB = 16
_MODELLED = frozenset(
    {"hostname", "net0", "nameserver", "searchdomain", "memory", "cores", "unprivileged"}
)
# What the container itself does not see, or what containers here have anyway.
_UNSEEN = frozenset(
    {
        *("arch", "description", "features", "onboot", "ostype", "pool", "protection", "rootfs"),
        *("start", "startup", "storage", "swap", "tags", "template", "unique", "cmode", "tty"),
    }
)
_OF_CARD = frozenset({"name", "ip", "gw", "ip6", "gw6", "hwaddr"})
_UNSEEN_OF_CARD = frozenset({"bridge", "type", "firewall"})
_HARDWARE = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_NAME = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)

_Address = IPv4Interface | IPv6Interface


class Pct(msgspec.Struct, frozen=True, kw_only=True):
    """What one container is given.

    :param hostname: as Proxmox writes it, without a domain.
    :param ip: an address of the card with its prefix length, ``dhcp``, or ``manual`` for neither.
    :param ip6: likewise, or ``auto`` for what a router advertises.
    :param gateways: of both families.
    :param hardware: the card's Ethernet address, ``""`` for one that is made.
    :param memory_mib: limit of its memory, in MiB.
    :param cores: processors that it may use, ``None`` for all.
    """

    hostname: str
    ip: IPv4Interface | str
    ip6: IPv6Interface | str
    gateways: tuple[IPv4Address | IPv6Address, ...]
    name_servers: tuple[str, ...]
    search_domains: tuple[str, ...]
    hardware: str
    memory_mib: int
    cores: int | None

    @classmethod
    def parse(cls, command: str, *, member: str) -> Self:
        """Read the options of ``pct create`` as they stand on a command line, with or without
        ``pct create ID TEMPLATE`` before them.

        :param member: of the cluster, for messages and where there is no ``--hostname``.
        :raises SettingsError: if they cannot be read, or ask for what is not modelled.
        """
        options = _options(command, member)
        _refuse(options, _MODELLED | _UNSEEN, member, what="--{}", only=_MODELLED)
        if options.get("ostype", "nixos") != "nixos":
            raise _wrong(member, "ostype", options["ostype"], "nixos, or none: Proxmox sees it")
        if options.get("unprivileged", "1") != "1":
            raise _wrong(
                member,
                "unprivileged",
                options["unprivileged"],
                "1: root of a privileged container would be root of this machine",
            )
        card = _card(options, member)
        name = options.get("hostname", member.rpartition("#")[2])
        if not _NAME.fullmatch(name):
            raise _wrong(member, "hostname", name, "a DNS name")
        ip, ip6 = _ip(member, card, 4), _ip(member, card, 6)
        if ip6 == "dhcp":
            raise _wrong(
                member,
                "net0 ip6",
                "dhcp",
                "an address, auto or manual: no network here answers DHCPv6",
            )
        if ip6 == "auto" and ip != "dhcp":
            raise _wrong(
                member,
                "net0 ip6",
                "auto",
                "beside ip=dhcp: a network here advertises its prefix to whom it leases an address",
            )
        hardware = card.get("hwaddr", "").lower()
        if hardware and not _HARDWARE.fullmatch(hardware):
            raise _wrong(member, "net0 hwaddr", hardware, "an address such as BC:24:11:00:00:01")
        return cls(
            hostname=name.partition(".")[0],
            ip=ip if isinstance(ip, IPv4Interface | str) else "manual",
            ip6=ip6 if isinstance(ip6, IPv6Interface | str) else "manual",
            gateways=tuple(_gateway(member, card[k], k) for k in ("gw", "gw6") if card.get(k)),
            name_servers=tuple(
                str(_gateway(member, word, "nameserver")) for word in _words(options, "nameserver")
            ),
            search_domains=_words(options, "searchdomain"),
            hardware=hardware,
            memory_mib=_number(options, "memory", member, least=_LEAST_MIB) or _MEMORY_MIB,
            cores=_number(options, "cores", member, least=1),
        )

    @property
    def addresses(self) -> tuple[str, ...]:
        """The card's addresses with their prefix lengths."""
        return tuple(str(a) for a in (self.ip, self.ip6) if not isinstance(a, str))

    @property
    def files(self) -> Mapping[str, str]:
        """What Proxmox writes, by path below the root directory."""
        search = f"search {' '.join(self.search_domains)}\n" if self.search_domains else ""
        servers = "".join(f"nameserver {server}\n" for server in self.name_servers)
        return {
            "etc/hostname": f"{self.hostname}\n",
            "etc/resolv.conf": search + servers,
            f"etc/systemd/network/{_CARD}.network": "".join(
                f"{line}\n" for line in self._network()
            ),
        }

    def _network(self) -> Sequence[str]:
        lines = ["[Match]", f"Name = {_CARD}", "", "[Network]"]
        lines += [f"Description = Interface {_CARD} autoconfigured by PVE"]
        routes: list[str] = []
        accepts = self.ip6 == "auto"
        for own, version in ((self.ip, 4), (self.ip6, 6)):
            if not isinstance(own, str):
                lines.append(f"Address = {own}")
            for gateway in self.gateways:
                if gateway.version != version:
                    continue
                lines.append(f"Gateway = {gateway}")
                accepts = accepts and version == 4
                if (
                    not isinstance(own, str)
                    and not gateway.is_link_local
                    and gateway not in own.network
                ):
                    single = f"{gateway}/{gateway.max_prefixlen}"
                    routes += ["", "[Route]", f"Destination = {single}", "Scope = link"]
        lines.append(f"DHCP = {'ipv4' if self.ip == 'dhcp' else 'no'}")
        lines.append(f"IPv6AcceptRA = {'true' if accepts else 'false'}")
        return [*lines, *routes]


def _options(command: str, member: str) -> dict[str, str]:
    try:
        words = shlex.split(command)
    except ValueError as err:
        raise _unreadable(member, command, str(err)) from err
    if words[:2] == ["pct", "create"]:
        words = words[4:]
    found: dict[str, str] = {}
    while words:
        word = words.pop(0)
        name, given, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or (not given and not words):
            raise _unreadable(member, command, f"{word!r} is no option with a value")
        if name in found:
            raise _unreadable(member, command, f"--{name} is there twice")
        found[name] = value if given else words.pop(0)
    return found


def _card(options: Mapping[str, str], member: str) -> Mapping[str, str]:
    if "net0" not in options:
        raise SettingsError(
            f"pct of {member}: no --net0, so the container is on no network",
            remedy="add --net0 name=eth0,bridge=vmbr0,ip=dhcp, or ip=ADDRESS/LENGTH,gw=ADDRESS",
        )
    parts = [part.partition("=") for part in options["net0"].split(",")]
    card = {key: value for key, _, value in parts}
    if len(card) < len(parts) or not all(value for value in card.values()):
        raise _wrong(member, "net0", options["net0"], "key=value, each once, with commas between")
    _refuse(card, _OF_CARD | _UNSEEN_OF_CARD, member, what="--net0 {}=", only=_OF_CARD)
    if card.get("name") != _CARD:
        raise _wrong(
            member,
            "net0 name",
            card.get("name", ""),
            f"{_CARD}: a container's card is called so here",
        )
    return card


def _refuse(
    given: Mapping[str, str], known: frozenset[str], member: str, *, what: str, only: frozenset[str]
) -> None:
    for name in given:
        if name not in known:
            raise SettingsError(
                f"pct of {member}: {what.format(name)} is not modelled",
                remedy=f"leave it out; what a container here is given: {', '.join(sorted(only))}",
            )


def _ip(member: str, card: Mapping[str, str], version: int) -> _Address | str:
    key = "ip" if version == 4 else "ip6"
    text = card.get(key, "manual")
    if text in ("dhcp", "manual") or (text == "auto" and version == 6):
        return text
    kind = IPv4Interface if version == 4 else IPv6Interface
    wrong = _wrong(member, f"net0 {key}", text, "ADDRESS/LENGTH, dhcp or manual")
    try:
        found = kind(text)
    except ValueError as err:
        raise wrong from err
    if "/" not in text:
        raise wrong
    return found


def _gateway(member: str, text: str, where: str) -> IPv4Address | IPv6Address:
    try:
        found = ip_address(text)
    except ValueError as err:
        raise _wrong(member, where, text, "an IP address") from err
    if where in ("gw", "gw6") and found.version != (4 if where == "gw" else 6):
        raise _wrong(member, where, text, "an address of that family")
    return found


def _words(options: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(re.split(r"[\s,;]+", options[name].strip())) if options.get(name) else ()


def _number(options: Mapping[str, str], name: str, member: str, *, least: int) -> int | None:
    text = options.get(name)
    if text is None:
        return None
    if not text.isdecimal() or int(text) < least:
        raise _wrong(member, name, text, f"a whole number of at least {least}")
    return int(text)


def _wrong(member: str, where: str, got: str, expected: str) -> SettingsError:
    return SettingsError(f"pct of {member}: {where} is {got!r}", remedy=f"expected {expected}")


def _unreadable(member: str, command: str, why: str) -> SettingsError:
    return SettingsError(
        f"pct of {member}: cannot be read: {why}: {command!r}",
        remedy="give the options as on the command line: --net0 name=eth0,ip=10.0.0.5/24 --memory 512",
    )
