"""``host.interface``."""

from __future__ import annotations

import json
from typing import Any

from testinfra.modules.interface import LinuxInterface

__all__ = ["NixosInterface"]


class NixosInterface(LinuxInterface):
    """Test network interfaces.

    testinfra's ``default()`` is an interface without a name where no route leads everywhere, as in
    a container on a private link.
    """

    @classmethod
    def get_module_class(cls, _host: Any) -> type[NixosInterface]:
        return cls

    @classmethod
    def default(cls, family: str | None = None) -> NixosInterface:
        """Return the interface of the default route; without one, the only interface with an
        address for others.

        :param family: ``inet`` (default) or ``inet6``.
        :raises AssertionError: if there is no default route and not exactly one such interface.
        """
        version = "-6" if family == "inet6" else "-4"
        routes = json.loads(cls.check_output("ip --json %s route show default", version) or "[]")
        for route in sorted(routes, key=lambda r: r.get("metric", 0)):
            if name := route.get("dev"):
                return cls(name, family)
        found = json.loads(
            cls.check_output("ip --json %s address show scope global", version) or "[]"
        )
        names = [entry["ifname"] for entry in found if entry.get("addr_info")]
        assert len(names) == 1, (
            f"no default route, and {len(names)} interfaces have an address for others"
            f"{': ' + ', '.join(names) if names else ''}"
        )
        return cls(names[0], family)

    def __repr__(self) -> str:
        return f"<interface {self.name}>"
