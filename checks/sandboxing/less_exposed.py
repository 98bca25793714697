"""What lowers the exposure of a service without taking from it what it is declared to need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from pytest_nixos import Unit, observe

__all__ = ["less_exposed"]

# systemd.exec(5): what each takes away no service needs that has not the capability behind it.
_SWITCHES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "NoNewPrivileges": frozenset(),
        "LockPersonality": frozenset(),
        "PrivateDevices": frozenset({"CAP_MKNOD", "CAP_SYS_RAWIO"}),
        "ProtectClock": frozenset({"CAP_SYS_TIME", "CAP_WAKE_ALARM"}),
        "ProtectControlGroups": frozenset({"CAP_SYS_ADMIN"}),
        "ProtectHostname": frozenset({"CAP_SYS_ADMIN"}),
        "ProtectKernelLogs": frozenset({"CAP_SYSLOG"}),
        "ProtectKernelModules": frozenset({"CAP_SYS_MODULE"}),
        "ProtectKernelTunables": frozenset({"CAP_SYS_ADMIN", "CAP_NET_ADMIN"}),
        "RestrictNamespaces": frozenset({"CAP_SYS_ADMIN"}),
        "RestrictRealtime": frozenset({"CAP_SYS_NICE"}),
        "RestrictSUIDSGID": frozenset({"CAP_FSETID"}),
    }
)
_BY_ROOT = ("+", "!")


def less_exposed(unit: Unit, found: observe.Exposure) -> str:
    """Return module text for a service that systemd calls exposed.

    A service keeps the capabilities that it is given (``AmbientCapabilities=``), and one that runs as
    root is asked for those it needs: nobody can tell from outside.

    :param found: what systemd holds against it.
    """
    needed = unit.words("Service", "AmbientCapabilities")
    name = unit.name.removesuffix(".service")
    lines = [
        f'systemd.services."{name}".serviceConfig = {{',
        *_of_capabilities(unit, needed),
        *(f"  {switch} = true;" for switch in _switches(unit, frozenset(needed), found)),
        *_of_calls(unit, needed, found),
        "};",
    ]
    return "\n".join(lines)


def _of_capabilities(unit: Unit, needed: tuple[str, ...]) -> Iterator[str]:
    if any("~" in text for text in unit.setting("Service", "CapabilityBoundingSet")) or needed:
        words = " ".join(f'"{word}"' for word in needed)
        yield f"  CapabilityBoundingSet = lib.mkForce [ {words} ];"
    elif unit.setting("Service", "CapabilityBoundingSet"):
        return
    elif _has_account(unit):
        yield '  CapabilityBoundingSet = "";'
    else:
        yield "  # It runs as root: give it an account (DynamicUser or User), or name the capabilities that it needs:"
        yield '  # CapabilityBoundingSet = [ "CAP_NET_BIND_SERVICE" ];'


def _has_account(unit: Unit) -> bool:
    """Whether all of a service runs as somebody else than root."""
    commands = [
        text
        for key in ("ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload", "ExecStop")
        for text in unit.setting("Service", key)
    ]
    if any(sign in text.split("/", 1)[0] for text in commands for sign in _BY_ROOT):
        return False
    user = unit.setting("Service", "User")
    return unit.is_on("Service", "DynamicUser") or bool(user and user[-1] not in ("", "root", "0"))


def _switches(unit: Unit, needed: frozenset[str], found: observe.Exposure) -> Iterator[str]:
    weak = {item.directive.partition("=")[0] for item in found.items}
    kept = {name for name in _SWITCHES if unit.setting("Service", name)}
    if unit.setting("Service", "DeviceAllow"):
        kept.add("PrivateDevices")
    for switch, needs in _SWITCHES.items():
        if switch in weak - kept and not needs & needed:
            yield switch


def _of_calls(unit: Unit, needed: tuple[str, ...], found: observe.Exposure) -> Iterator[str]:
    if unit.setting("Service", "SystemCallFilter"):
        return
    if any(item.directive.startswith("SystemCallFilter") for item in found.items):
        without = ' "~@privileged"' if _has_account(unit) and not needed else ""
        yield f'  SystemCallFilter = [ "@system-service"{without} ];'
