"""Where systemd-nspawn passes on that the guest's systemd has ended its boot (sd_notify(3),
``--notify-ready`` of systemd-nspawn(1)).

It is no verdict, since a guest can say it at any time: it tells when a look at the manager is worth
its cost, which during a boot is a twentieth of the boot's own.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

from pytest_nixos.errors import MachineError

__all__ = ["BootNotice"]

_READY = b"READY=1"
_LONGEST = 1 << 16
_JOIN_S = 1.0


class BootNotice:
    """The socket of one boot.

    A thread takes all that comes: systemd-nspawn passes on the guest's other news too and waits,
    with the container's console, where ten of them lie unread. After the end of the boot the socket
    is closed, and what is sent then is lost.

    :param path: where it is made; what an earlier boot left there goes.
    :raises MachineError: if it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._has_ended = threading.Event()
        self._closing = False
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
        self._thread = threading.Thread(target=self._listen, name="nixos-notice", daemon=True)
        self._thread.start()

    def has_come(self) -> bool:
        """Whether the boot is said to have ended."""
        return self._has_ended.is_set()

    def close(self) -> None:
        """Give it up; safe to call twice."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=_JOIN_S)
        self.path.unlink(missing_ok=True)

    def _listen(self) -> None:
        with self._socket, contextlib.suppress(OSError):
            while not self._closing:
                if _READY in self._socket.recv(_LONGEST).splitlines():
                    self._has_ended.set()
                    return
