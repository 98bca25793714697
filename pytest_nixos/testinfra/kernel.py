"""``host.sysctl``."""

from __future__ import annotations

from testinfra.modules.base import InstanceModule

from pytest_nixos.observe.kernel import sysctl_path

__all__ = ["NixosSysctl"]


class NixosSysctl(InstanceModule):
    """Read kernel parameters from ``/proc/sys``, with no program in the guest.

    >>> host.sysctl("vm.swappiness")
    10
    """

    def __call__(self, name: str) -> int | str:
        """Return the value of `name`: an int where the kernel gives one number, else text as the
        kernel gives it.

        :raises AssertionError: if the kernel has no such key or it cannot be read.
        """
        text = self.check_output("cat -- %s", sysctl_path(name))
        try:
            return int(text)
        except ValueError:
            return str(text)

    def __repr__(self) -> str:
        return "<sysctl>"
