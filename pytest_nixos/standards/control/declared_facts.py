"""Facts of the evaluated config that stand for what a control observes: named by ``declared = {
fact = ... }``.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.standards.control.config_fact import ConfigFact
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen

__all__ = ["DECLARED_FACTS", "forwards"]

Json = Any

#: PollIntervalMaxSec= of systemd-timesyncd where nothing sets it, timesyncd.conf(5).
_TIMESYNC_POLL_S = 2048
_SECONDS = {"": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hr": 3600}
_POLL = re.compile(r"^\s*PollIntervalMaxSec\s*=\s*(\d+)\s*([a-z]*)\s*$", re.MULTILINE)
_MAPPER = re.compile(r"/dev/mapper/([\w.+-]+)")
_VOLUME = re.compile(r"/dev/(?:mapper/)?[\w.+-]+[-/][\w.+-]+")
_FORWARDING = re.compile(r"net\.ipv4\.ip_forward|net\.ipv[46]\.conf\..+\.forwarding")
#: Daemons of containers and machines, which write to /proc/sys when they start.
_FORWARDER = re.compile(r"(docker|podman|libvirtd|lxd|incus|k3s|kubelet|netavark|microvm)[\w@-]*\.")
_GPU = re.compile(r"ROCm|CUDA|Vulkan")


def forwards(host: HostConfig) -> bool:
    """Whether the host declares that it forwards packets, or runs what turns forwarding on by
    itself.
    """
    if any(_FORWARDING.fullmatch(k) and v not in ("0", "") for k, v in host.sysctls.items()):
        return True
    if any(unit.enabled and _FORWARDER.match(name) for name, unit in host.units.items()):
        return True
    networks = _value(host, "systemd.network.networks")
    members = networks.values() if isinstance(networks, Mapping) else ()
    return any(_masquerades(network) for network in members)


def _masquerades(network: Json) -> bool:
    settings = network.get("networkConfig") if isinstance(network, Mapping) else None
    if not isinstance(settings, Mapping):
        return False
    keys = ("IPForward", "IPv4Forwarding", "IPv6Forwarding", "IPMasquerade")
    return any(str(settings.get(key) or "no").lower() not in ("no", "false", "0") for key in keys)


def _value(host: HostConfig, path: str) -> Json:
    declared = host.option(path)
    return declared.value if declared.present else None


def _boot_entries(host: HostConfig, _: dt.date) -> Sight:
    for loader in ("systemd-boot", "grub"):
        if _value(host, f"boot.loader.{loader}.enable") is True and not host.is_container:
            return Seen(_value(host, f"boot.loader.{loader}.configurationLimit"))
    return Unseen("the host installs neither systemd-boot nor GRUB", applicable=False)


def _time_poll(host: HostConfig, _: dt.date) -> Sight:
    if _value(host, "services.timesyncd.enable") is not True:
        return Unseen("the host does not use systemd-timesyncd", applicable=False)
    setting = _value(host, "services.timesyncd.settings.Time.PollIntervalMaxSec")
    text = _value(host, "services.timesyncd.extraConfig") or ""
    match = _POLL.search(f"PollIntervalMaxSec={setting}" if setting is not None else str(text))
    if match is None:
        return Seen(_TIMESYNC_POLL_S if setting is None else setting)
    return Seen(int(match[1]) * _SECONDS.get(match[2], 1))


def _plain_swap(host: HostConfig, _: dt.date) -> Sight:
    entries = _value(host, "swapDevices")
    if not entries:
        return Unseen("the host declares no swap on disk", applicable=False)
    luks = _value(host, "boot.initrd.luks.devices")
    opened = {
        str(device.get("name") or name) if isinstance(device, Mapping) else str(name)
        for name, device in (luks.items() if isinstance(luks, Mapping) else ())
    }
    plain: list[str] = []
    unknown: list[str] = []
    for entry in entries:
        if not isinstance(entry, Mapping) or _is_encrypted(entry):
            continue
        device = str(entry.get("device") or entry.get("label") or "")
        mapper = _MAPPER.fullmatch(device)
        if device.startswith("/dev/zram") or (mapper is not None and mapper[1] in opened):
            continue
        # A volume, or a file on a file system, is as encrypted as what lies below, which no option
        # says.
        below = _VOLUME.fullmatch(device) and not device.startswith("/dev/disk/")
        (unknown if opened and (below or not device.startswith("/dev/")) else plain).append(device)
    if unknown and not plain:
        devices = ", ".join(unknown)
        return Unseen(f"no option says what lies below {devices}", applicable=False)
    return Seen(plain)


def _is_encrypted(entry: Mapping[str, Json]) -> bool:
    return any(
        isinstance(part := entry.get(key), Mapping) and part.get("enable") is True
        for key in ("randomEncryption", "encrypted")
    )


def _ollama_acceleration(host: HostConfig, _: dt.date) -> Sight:
    if host.option("services.ollama.acceleration").present:
        value = _value(host, "services.ollama.acceleration")
        if value is None:
            return Unseen("the host leaves the choice of acceleration to Ollama", applicable=False)
        return Seen(value)
    about = _value(host, "services.ollama.package.meta.description")
    if not isinstance(about, str):
        return Unseen("neither an option nor the package tells of acceleration", applicable=False)
    found = _GPU.search(about)
    return Seen(found[0].lower() if found else False)


DECLARED_FACTS: Mapping[str, ConfigFact] = {
    "boot-entries": ConfigFact(
        about="how many entries the boot loader in use keeps",
        read=_boot_entries,
        options=(
            "boot.loader.systemd-boot.enable",
            "boot.loader.systemd-boot.configurationLimit",
            "boot.loader.grub.enable",
            "boot.loader.grub.configurationLimit",
        ),
    ),
    "time-poll": ConfigFact(
        about="seconds after which systemd-timesyncd compares the clock at the latest",
        read=_time_poll,
        options=(
            "services.timesyncd.enable",
            "services.timesyncd.extraConfig",
            "services.timesyncd.settings.Time.PollIntervalMaxSec",
        ),
    ),
    "plain-swap": ConfigFact(
        about="swap devices that nothing encrypts",
        read=_plain_swap,
        options=("swapDevices", "boot.initrd.luks.devices"),
    ),
    "ollama-acceleration": ConfigFact(
        about="the GPU that Ollama is built for, or false",
        read=_ollama_acceleration,
        options=("services.ollama.acceleration", "services.ollama.package.meta.description"),
    ),
}
