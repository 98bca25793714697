"""A minimal speaker of the NixOS test driver's shell protocol, for comparison only.

The guest end is what nixpkgs' ``nixos/modules/testing/test-instrumentation.nix`` sets up as
``backdoor.service``: root's bash with ``/dev/hvc0`` as all three streams, set raw. The host end
does what ``execute()`` of the driver's ``machine.py`` does: run the command under ``timeout`` in a
bash of its own with ``set -euo pipefail``, take its standard output as one line of base64, then ask
for the status by a second line.
"""

from __future__ import annotations

import base64
import shlex
import socket
import time

# Started in the guest by whoever has a root shell there already.
GUEST_END = (
    "systemctl stop serial-getty@hvc0 2>/dev/null; "
    "setsid bash -c 'exec </dev/hvc0 >/dev/hvc0 2>/dev/null; stty -F /dev/hvc0 raw -echo; echo; "
    "PS1= exec bash --norc /dev/hvc0' </dev/null >/dev/null 2>&1 & sleep 1"
)


class DriverShell:
    """The host machine's end.

    :param path: the Unix socket that QEMU serves hvc0 on.
    """

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._received = bytearray()

    def hello(self, *, limit_s: float) -> None:
        """Wait until the guest's shell answers, whatever was said before."""
        end_s = time.monotonic() + limit_s
        self._socket.settimeout(3.0)
        while time.monotonic() < end_s:
            self._socket.sendall(b"echo ready-$((40+2))\n")
            try:
                while self._line().strip() != b"ready-42":
                    pass
            except TimeoutError:
                continue
            self._socket.settimeout(60.0)
            return
        raise TimeoutError("no shell on hvc0")

    def again(self) -> None:
        """Come back into step after output was lost."""
        self._socket.settimeout(5.0)
        self._received.clear()
        self.hello(limit_s=60.0)

    def execute(self, command: str) -> tuple[int, bytes]:
        """Return exit status and standard output, as the driver's ``execute`` does."""
        whole = f"set -euo pipefail; {command}"
        line = f"timeout 900 bash -c {shlex.quote(whole)} | (base64 -w 0; echo)\n"
        self._socket.sendall(line.encode())
        output = base64.b64decode(self._line())
        self._socket.sendall(b"echo ${PIPESTATUS[0]}\n")
        return int(self._line()), output

    def close(self) -> None:
        self._socket.close()

    def _line(self) -> bytes:
        chunks = [bytes(self._received)]
        while b"\n" not in chunks[-1]:
            chunks.append(self._socket.recv(1 << 20))
            if not chunks[-1]:
                raise ConnectionError("hvc0 is closed")
        line, _, rest = b"".join(chunks).partition(b"\n")
        self._received = bytearray(rest)
        return line
