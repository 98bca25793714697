"""What containers share with the machine that runs them: its kernel."""

from __future__ import annotations

from pytest_nixos.local.process import Runner
from pytest_nixos.local.timing import Deadline

__all__ = ["has_wireguard"]

_LIMIT_S = 30.0
# In a network namespace that ends with the command. The kernel loads the module by itself where it has one.
_PROBE = ("unshare", "--net", "ip", "link", "add", "wg0", "type", "wireguard")


def has_wireguard(runner: Runner) -> bool:
    """Whether the kernel can make WireGuard interfaces; needs root.

    :raises ProcessError: if the programs of util-linux or iproute2 are not there.
    """
    return runner.run(_PROBE, deadline=Deadline.after(_LIMIT_S)).exit_status == 0
