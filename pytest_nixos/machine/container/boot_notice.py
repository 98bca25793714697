"""Where systemd-nspawn passes on that the guest's systemd has ended its boot (sd_notify(3),
``--notify-ready`` of systemd-nspawn(1)).

It is no verdict, since a guest can say it at any time: it tells when a look at the manager is worth
its cost, which during a boot is a twentieth of the boot's own.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline

__all__ = ["BootNotice"]

_READY = b"READY=1"
_LONGEST = 1 << 16


class BootNotice:
    """The socket of one boot.

    systemd-nspawn waits where nobody takes its messages: whoever does not ask any more closes it, and
    what is sent then is lost, which nobody minds.

    :param path: where it is made; what an earlier boot left there goes.
    :raises MachineError: if it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            path.unlink(missing_ok=True)
            self._socket.bind(str(path))
        except OSError as err:
            self._socket.close()
            raise MachineError(
                f"{path}: the socket for the container's news cannot be made: {err.strerror or err}",
                remedy="free some space there, or set TMPDIR to a directory with room",
            ) from err

    def wait(self, limit_s: float) -> bool:
        """Wait until the boot is said to have ended, at most `limit_s` seconds; return whether it
        is. It is closed then.
        """
        limit = Deadline.after(limit_s)
        while (left_s := limit.remaining_s) > 0:
            self._socket.settimeout(left_s)
            with contextlib.suppress(TimeoutError):
                if _READY in self._socket.recv(_LONGEST).splitlines():
                    self.close()
                    return True
        return False

    def close(self) -> None:
        """Give it up; safe to call twice."""
        self._socket.close()
        self.path.unlink(missing_ok=True)
