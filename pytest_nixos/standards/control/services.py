"""The services that a host is there for, and what their unit files say."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.unit import Unit

__all__ = ["application_services", "unit_environment"]

#: Services that NixOS itself brings; what is left is what the host is there for.
_SYSTEM_SERVICES = re.compile(
    r"^(systemd-.*|dbus.*|nscd|nsncd|sshd.*|getty.*|autovt.*|console-.*|serial-getty.*|container-getty.*|user.*|"
    r"network-.*|dhcpcd|resolvconf|firewall|nftables|polkit|audit.*|rescue|emergency|nix-.*|logrotate.*|"
    r"mount-.*|post-.*|pre-.*|reload-.*|linger-.*|register-.*|save-.*|suid-.*|kmod-.*|modprobe.*|lvm.*|"
    r"mdmonitor|prepare-.*|sys-.*|zfs.*|acme-.*|fstrim|cpufreq|display-manager|alsa.*|wpa_supplicant.*|"
    r"NetworkManager.*|ModemManager|rtkit.*|udisks2|upower|accounts-daemon|apparmor|disable-.*|domainname|"
    r"pytest-nixos.*|container@.*|podman.*|docker.*|libvirt.*|wireguard-.*|nixos-.*|update-.*|tmp-.*)\.service$"
)


def application_services(host: HostConfig) -> tuple[str, ...]:
    """Return the long-running services that the host is there for: enabled, started at boot, not
    NixOS's own.
    """
    return tuple(
        sorted(
            name
            for name, unit in host.units.items()
            if name.endswith(".service")
            and unit.enabled
            and unit.wanted_by
            and "@." not in name
            and not _SYSTEM_SERVICES.match(name)
            and unit.setting("Service", "Type")[-1:] != ("oneshot",)
        )
    )


def unit_environment(unit: Unit) -> Mapping[str, str]:
    """Return the variables that a unit file sets with ``Environment=``."""
    found: dict[str, str] = {}
    for text in unit.setting("Service", "Environment"):
        for quoted, plain in re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', text):
            key, sign, value = (quoted or plain).partition("=")
            if sign:
                found[key] = value
    return found
