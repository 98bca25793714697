"""Whether a control applies to a host in a place at all."""

from __future__ import annotations

import re
from functools import cache

from pytest_nixos.backend_name import BackendName
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.standards.control.declared_value import declared_value
from pytest_nixos.standards.control.expectation import NothingToCheckError, mismatch
from pytest_nixos.standards.control.model import Control, Requirement
from pytest_nixos.standards.control.seen import Unseen

__all__ = [
    "inapplicable",
    "is_falsified",
    "looks_at_machine",
    "outside_releases",
    "release_number",
    "unmet",
    "unmet_requirement",
]


def inapplicable(control: Control, host: HostConfig, place: BackendName) -> str | None:
    """Say why `control` does not apply, or return ``None`` if it does."""
    if place.kind not in control.applies_to:
        where = ", ".join(sorted(p.place for p in control.applies_to))
        return f"cannot be judged in a {place.place} (applies to: {where})"
    return unmet(control, host)


def is_falsified(control: Control, host: HostConfig, place: BackendName) -> bool:
    """Whether what is observed in a place says nothing about the host."""
    if host.own_disks and control.own_disks and place is BackendName.VM:
        return control.own_disks == "falsified"
    return place.kind in control.falsified_in


def looks_at_machine(control: Control, host: HostConfig, place: BackendName) -> bool:
    """Whether what is observed decides a data control here, so that it has to be asked for."""
    return (
        control.is_data
        and control.observed is not None
        and not is_falsified(control, host, place)
        and inapplicable(control, host, place) is None
    )


def unmet(control: Control, host: HostConfig) -> str | None:
    """Say which of its conditions on the host keeps `control` from applying, wherever the host
    runs.
    """
    if (outside := outside_releases(control.since, control.until, host.release)) is not None:
        return outside
    reasons = (unmet_requirement(requirement, host) for requirement in control.requires)
    return next((reason for reason in reasons if reason is not None), None)


def unmet_requirement(requirement: Requirement, host: HostConfig) -> str | None:
    """Return the reason of a requirement that the host does not meet, ``None`` if it does."""
    return None if _fulfilled(requirement, host) else requirement.reason


@cache
def release_number(release: str) -> tuple[int, int] | None:
    """Return ``(24, 5)`` for ``24.05``, ``24.05pre-git`` and the like."""
    match = re.match(r"(\d{2})\.(\d{2})", release)
    return (int(match[1]), int(match[2])) if match else None


def outside_releases(first: str | None, last: str | None, release: str) -> str | None:
    """Say why `release` lies outside of `first` to `last`, if so; a name without numbers lies
    inside.
    """
    number = release_number(release)
    if number is None:
        return None
    since = release_number(first) if first else None
    until = release_number(last) if last else None
    if since is not None and number < since:
        return f"applies from NixOS {first} on, and this host is {release}"
    if until is not None and number > until:
        return f"applies up to NixOS {last}, and this host is {release}"
    return None


def _fulfilled(requirement: Requirement, host: HostConfig) -> bool:
    found = declared_value(host, requirement.declared)
    value = None if isinstance(found, Unseen) else found.value
    try:
        return mismatch(requirement.expect, value) is None
    except NothingToCheckError:
        return False
