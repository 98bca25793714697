"""Why a declared sysctl is not in force, and what mends that."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

import msgspec

from pytest_nixos import HostConfig, observe, sysctl_module

from .overwritten import writers_of

__all__ = ["Reason", "same_setting", "why_missing", "why_other"]

# Where each network interface has a directory of its own.
_OF_INTERFACES = re.compile(r"net/ipv[46]/(?:conf|neigh)")
_OF_INTERFACE = re.compile(r"net[./]ipv4[./]conf[./]\S+[./]forwarding")
_IP_FORWARD = "net.ipv4.ip_forward"
# Their values name an algorithm, and an unknown one is no such file to the kernel.
_NAMES_SOMETHING = frozenset({"net.ipv4.tcp_congestion_control", "net.core.default_qdisc"})
_OWN_FILE = "/etc/sysctl.d/60-nixos.conf"


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why one sysctl is not as declared.

    :param words: a clause, ``""`` where nothing tells.
    :param remedy: module text, or comments that say what to do.
    """

    words: str = ""
    remedy: str


def same_setting(declared: Mapping[str, str]) -> Mapping[str, str]:
    """Leave out what the host itself sets anew by another name of the same setting.

    ``net.ipv4.ip_forward`` is ``net.ipv4.conf.all.forwarding``, which every NixOS host declares as
    off (``network-interfaces.nix``). 60-nixos.conf is sorted: ``ip_forward`` is written last.
    """
    by_default = declared.get("net.ipv4.conf.all.forwarding") == "0"
    if not by_default or declared.get(_IP_FORWARD) in (None, "0"):
        return declared
    return {k: v for k, v in declared.items() if k != "net.ipv4.conf.all.forwarding"}


def why_missing(key: str, value: str, gap: observe.SysctlGap | None) -> Reason:
    """Tell of a key that the kernel does not have.

    :param gap: where the way to it ends, ``None`` where nobody looked.
    """
    if gap is not None and _OF_INTERFACES.fullmatch(gap.above):
        others = [name for name in gap.names if name not in ("all", "default", "lo")]
        return Reason(
            words=f"there is no interface {gap.missing}",
            remedy=f"# {key} is of an interface that is not there ({', '.join(others) or 'there is lo alone'}): name one that is, or have it made.",
        )
    near = get_close_matches(gap.missing, gap.names, n=1, cutoff=0.8) if gap is not None else []
    if gap is not None and near:
        meant = "/".join(part for part in (gap.above, near[0], gap.rest) if part)
        meant = meant if "." in meant else meant.replace("/", ".")
        return Reason(
            words=f"the kernel has {meant}",
            remedy=f"# No kernel has {key}; this one has {meant}:\n"
            f'boot.kernel.sysctl."{meant}" = {_nix(value)};',
        )
    if module := sysctl_module(key, value):
        return Reason(
            remedy="# Load the module that brings the key before sysctl runs, or correct the key:\n"
            f'boot.kernelModules = [ "{module}" ];'
        )
    return Reason(
        remedy=f"# This kernel has no {key}: correct the key, or load the module that brings it with\n"
        "# boot.kernelModules."
    )


def why_other(
    key: str,
    *,
    host: HostConfig,
    sources: observe.SysctlSources,
    refused: Sequence[observe.RefusedSysctl],
    failed: bool = False,
) -> Reason:
    """Tell of a key that has another value than declared.

    :param failed: whether systemd-sysctl.service failed, as it does where a value is refused.
    """
    path = observe.sysctl_path(key).removeprefix("/proc/sys/")
    for one in refused:
        if one.key == path and key in _NAMES_SOMETHING:
            return _unknown_name(key, one.value)
        if one.key == path and one.was_missing:
            return _too_late(key, one.value)
        if one.key == path:
            return Reason(
                words=f"the kernel refuses that value: {one.error}",
                remedy=f"# The kernel does not take {one.value} for {key}: correct the value in\n"
                f'# boot.kernel.sysctl."{key}".',
            )
    for by, value in _later(path, sources):
        return Reason(
            words=f"set to {value} by {by}",
            remedy=f"# {by} sets {key} after boot.kernel.sysctl does: take it out there, or say the same here.",
        )
    forward = host.sysctls.get(_IP_FORWARD)
    if forward is not None and _OF_INTERFACE.fullmatch(key):
        return Reason(
            words=f"{_IP_FORWARD}, declared {forward}, is set later and sets every interface",
            remedy=f'# boot.kernel.sysctl."{_IP_FORWARD}" undoes {key}: declare one of them.',
        )
    if units := writers_of(path.replace("/", "."), host):
        names = ", ".join(units)
        return Reason(
            words=f"written by {names}",
            remedy=f'# {names} writes {key}: take that out of its script, or correct\n# boot.kernel.sysctl."{key}"',
        )
    if failed and not refused:
        return Reason(
            words="systemd-sysctl.service failed, and its journal is lost",
            remedy=f'# The kernel may refuse the value of boot.kernel.sysctl."{key}", or something changes it afterwards:\n'
            "# systemd-sysctl.service failed and its journal does not say at what.",
        )
    return Reason(
        remedy=f"# Something gives {key} another value after systemd-sysctl.service has set it:"
        " a program, or a rule of udev."
    )


def _unknown_name(key: str, value: str) -> Reason:
    return Reason(
        words=f"the kernel knows no {value}",
        remedy=f"# The kernel has no {value} for {key}: correct it, or have the module that brings it loaded by\n"
        f'# boot.kernelModules = [ "{sysctl_module(key, value) or value}" ];',
    )


def _too_late(key: str, value: str) -> Reason:
    module = sysctl_module(key, value)
    return Reason(
        words="the key was not there yet when systemd-sysctl.service ran",
        remedy=f'# What brings {key} comes too late for it:\nboot.kernelModules = [ "{module}" ];'
        if module
        else f"# What brings {key} comes too late for it: load it by boot.kernelModules.",
    )


def _later(path: str, sources: observe.SysctlSources) -> list[tuple[str, str]]:
    """Return who sets it after 60-nixos.conf, the last word first, and to what."""
    names = [line.by for line in sources.lines]
    ours = max((i for i, name in enumerate(names) if name == _OWN_FILE), default=-1)
    # A glob is no word about a key that another line writes out.
    later = [line for line in sources.lines[ours + 1 :] if line.path == path]
    found = [(line.by, line.value) for line in reversed(later)]
    return found + [(o.by, o.value) for o in sources.tmpfiles if fnmatchcase(path, o.path)]


def _nix(value: str) -> str:
    return value if re.fullmatch(r"\d+", value) else f'"{value}"' if '"' not in value else "…"
