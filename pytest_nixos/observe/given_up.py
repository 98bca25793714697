"""Whether there is still something to wait for: asked by every check that waits for a service, each time anew."""

from __future__ import annotations

import shlex

from pytest_nixos.machine.base import Machine

__all__ = ["has_failed"]

_LIMIT_S = 30.0


def has_failed(machine: Machine, *units: str) -> bool:
    """Whether one of `units` has failed for good; systemd calls one that it will try again ``activating``."""
    names = " ".join(shlex.quote(unit) for unit in units)
    return machine.run(f"systemctl is-failed --quiet {names}", timeout_s=_LIMIT_S).succeeded
