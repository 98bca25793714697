"""Kernel parameters of one network interface: what is in force there, which ``all`` alone does not
say.

How the kernel joins ``all`` and the interface's own value differs from parameter to parameter
(include/linux/inetdevice.h, ``IN_DEV_MAXCONF`` and its kin; Documentation/networking/ip-sysctl.rst).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Self

import msgspec

__all__ = ["InterfaceParameter"]

_KEY = re.compile(r"net[./](ipv[46])[./]conf[./](?:(.+)[./])?([a-z0-9_]+)")
#: Templates, and the machine's talk with itself: no stranger reaches it.
_NO_INTERFACE = frozenset({"all", "default", "lo"})
#: The highest of both counts, IN_DEV_MAXCONF.
_HIGHEST = frozenset({"rp_filter", "arp_ignore", "arp_announce", "arp_accept", "arp_notify"})
#: Both have to allow it, IN_DEV_ANDCONF; in IPv6 the lower counts (net/ipv6/exthdrs.c).
_LOWEST = frozenset({"accept_source_route", "mc_forwarding", "bc_forwarding"})
#: The interface's own value alone, IN_DEV_CONF_GET.
_OWN = frozenset({"forwarding", "accept_local", "proxy_arp_pvlan", "medium_id"})


class InterfaceParameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter that each interface has.

    :param family: ``ipv4`` or ``ipv6``.
    """

    family: str
    name: str

    @classmethod
    def of_all(cls, key: str) -> Self | None:
        """Return the parameter whose value for all interfaces `key` names, ``None`` for any other
        key.
        """
        if key in ("net.ipv4.ip_forward", "net/ipv4/ip_forward"):
            return cls(family="ipv4", name="forwarding")
        match = _KEY.fullmatch(key)
        return cls(family=match[1], name=match[3]) if match and match[2] == "all" else None

    @property
    def every(self) -> str:
        """The glob of every interface's key, as sysctl.d(5) writes it."""
        return f"net.{self.family}.conf.*.{self.name}"

    def key(self, interface: str) -> str:
        """Return the key of one interface; a name with a dot needs slashes."""
        key = f"net/{self.family}/conf/{interface}/{self.name}"
        return key if "." in interface else key.replace("/", ".")

    def interface(self, key: str) -> str | None:
        """Return the interface that `key` sets this parameter of, ``None`` if it is none."""
        match = _KEY.fullmatch(key)
        if match is None or (match[1], match[3]) != (self.family, self.name):
            return None
        name = match[2] or ""
        return None if not name or name in _NO_INTERFACE or re.search(r"[*?\[]", name) else name

    def in_force(self, of_all: str | None, own: str, *, forwards: bool) -> str:
        """Return the value that decides about packets of an interface.

        :param of_all: the value of ``all``, ``None`` where the kernel has none.
        :param own: the interface's own value.
        :param forwards: whether the interface forwards packets: redirects are then taken only
            where both values allow it (IN_DEV_RX_REDIRECTS).
        """
        if of_all is None or not (of_all.lstrip("-").isdecimal() and own.lstrip("-").isdecimal()):
            return own
        if self.name in _OWN or (self.family == "ipv6" and self.name not in _LOWEST):
            return own
        both = (int(of_all), int(own))
        if self.name in _LOWEST or (self.name == "accept_redirects" and forwards):
            return str(min(both))
        # Of a switch either will do, IN_DEV_ORCONF; the highest of two switches is the same.
        return str(max(both))

    def cases(self, values: Mapping[str, str], declared: Mapping[str, str]) -> Mapping[str, str]:
        """Return what is in force on each interface, by interface.

        :param values: kernel parameters of the machine, those of its interfaces among them.
        :param declared: what the host declares: an interface that this machine lacks has what is
            declared for it.
        """
        of_all = values.get("net.ipv4.ip_forward" if self._is_ip_forward else self.key("all"))
        own = {
            name: value
            for source in (declared, values)
            for key, value in source.items()
            if (name := self.interface(key)) is not None
        }
        return {
            name: self.in_force(of_all, value, forwards=self._forwards(name, values, declared))
            for name, value in sorted(own.items())
        }

    @property
    def _is_ip_forward(self) -> bool:
        return (self.family, self.name) == ("ipv4", "forwarding")

    def _forwards(
        self, interface: str, values: Mapping[str, str], declared: Mapping[str, str]
    ) -> bool:
        key = InterfaceParameter(family=self.family, name="forwarding").key(interface)
        return values.get(key, declared.get(key, "0")).strip() == "1"
