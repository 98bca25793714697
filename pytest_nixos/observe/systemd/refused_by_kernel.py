"""Why the units failed that hand what a host declares to the kernel: sysctls and packet filters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from pytest_nixos.observe.systemd.failed_unit import PLAIN, FailedUnit, UnitFailure

__all__ = ["RefusedSysctl", "failure_by_kernel", "refused_sysctls"]

# src/sysctl/sysctl.c of systemd.
_SYSCTL = re.compile(
    r"Couldn't write '(?P<value>.*)' to '(?P<key>\S+)'(?P<ignored>, ignoring)?: (?P<error>[^:]+)$"
)
# Complaints of iptables, ip6tables and ipset, and of nft, which names a file and a place in it.
_FILTER = re.compile(
    r"(?:\]: |^)(?P<words>(?:ip6?tables|ipset)[\w.-]* v[\w.]+(?: \(\w+\))?: .+"
    r"|ip6?tables[\w-]*: .+|(?:\S+:\d+:\d+-\d+: )?Error: .+)$"
)
_MOST_CHARACTERS = 200


class RefusedSysctl(msgspec.Struct, frozen=True, kw_only=True):
    """A value that the kernel did not take.

    :param key: with slashes, below ``/proc/sys``.
    :param error: the kernel's word for it, as in errno(3).
    :param was_missing: whether there was no such key when systemd-sysctl.service ran, which fails
        nothing.
    """

    key: str
    value: str
    error: str
    was_missing: bool = False


def refused_sysctls(said: Sequence[str]) -> tuple[RefusedSysctl, ...]:
    """Return the values that the kernel refused, and those of keys that were not there.

    :param said: lines of the journal of ``systemd-sysctl.service``.
    """
    found = (match for line in said if (match := _SYSCTL.search(line)))
    told = (
        RefusedSysctl(
            key=match["key"],
            value=match["value"],
            error=match["error"],
            was_missing=bool(match["ignored"]) and match["error"] == "No such file or directory",
        )
        for match in found
    )
    return tuple({refused.key: refused for refused in told}.values())


def failure_by_kernel(failed: FailedUnit) -> UnitFailure | None:
    """Return why a unit failed whose work the kernel or its tools refused, ``None`` for any
    other.
    """
    known = _BY_UNIT.get(failed.name)
    return known(failed) if known is not None else None


def _sysctl(failed: FailedUnit) -> UnitFailure | None:
    refused = [one for one in refused_sysctls(failed.said) if not one.was_missing]
    if not refused:
        return UnitFailure(
            why="its journal does not say which value the kernel refuses",
            remedy="# Correct the value in boot.kernel.sysctl: SYS-001 names the keys that are not in force.",
        )
    return UnitFailure(
        why="; ".join(f"the kernel refuses {r.value} for {r.key} ({r.error})" for r in refused),
        remedy="\n".join(
            "# Give it a value that the kernel takes, under the name that it has in\n"
            f"# boot.kernel.sysctl: {r.key.replace('/', '.')}"
            for r in refused
            if PLAIN.fullmatch(r.key)
        ),
    )


def _filter(failed: FailedUnit) -> UnitFailure | None:
    # The first complaint: what follows may be for want of it.
    words = next((m["words"] for line in failed.said if (m := _FILTER.search(line))), "")
    if not words:
        return None
    return UnitFailure(
        why=f"its rules are refused: {words[:_MOST_CHARACTERS]}",
        remedy=f"# {failed.name} loads no rule after the one that is refused. Correct the option that it comes from:\n"
        "# networking.firewall (ports, ranges, extraCommands, extraInputRules) or networking.nftables.",
    )


_BY_UNIT: Mapping[str, Callable[[FailedUnit], UnitFailure | None]] = {
    "systemd-sysctl.service": _sysctl,
    "firewall.service": _filter,
    "nftables.service": _filter,
}
