"""Whether a control applies to a host in a place at all."""

from __future__ import annotations

import re

from pytest_nixos.backend_name import BackendName
from pytest_nixos.nix.host_config import HostConfig
from pytest_nixos.standards.declared_value import declared_value
from pytest_nixos.standards.expectation import NothingToCheckError, mismatch
from pytest_nixos.standards.model import Control, Requirement
from pytest_nixos.standards.seen import Unseen

__all__ = ["inapplicable", "release_number", "unmet"]


def inapplicable(control: Control, host: HostConfig, place: BackendName) -> str | None:
    """Say why `control` does not apply, or return ``None`` if it does."""
    if place not in control.applies_to:
        where = ", ".join(sorted(p.place for p in control.applies_to))
        return f"cannot be judged in a {place.place} (applies to: {where})"
    return unmet(control, host)


def unmet(control: Control, host: HostConfig) -> str | None:
    """Say which of its conditions on the host keeps `control` from applying, wherever the host runs."""
    if (outside := _outside_releases(control, host.release)) is not None:
        return outside
    for requirement in control.requires:
        if not _fulfilled(requirement, host):
            return requirement.reason
    return None


def release_number(release: str) -> tuple[int, int] | None:
    """Return ``(24, 5)`` for ``24.05``, ``24.05pre-git`` and the like."""
    match = re.match(r"(\d{2})\.(\d{2})", release)
    return (int(match[1]), int(match[2])) if match else None


def _outside_releases(control: Control, release: str) -> str | None:
    number = release_number(release)
    if number is None:
        return None
    since = release_number(control.since) if control.since else None
    until = release_number(control.until) if control.until else None
    if since is not None and number < since:
        return f"applies from NixOS {control.since} on, and this host is {release}"
    if until is not None and number > until:
        return f"applies up to NixOS {control.until}, and this host is {release}"
    return None


def _fulfilled(requirement: Requirement, host: HostConfig) -> bool:
    found = declared_value(host, requirement.declared)
    value = None if isinstance(found, Unseen) else found.value
    try:
        return mismatch(requirement.expect, value) is None
    except NothingToCheckError:
        return False
