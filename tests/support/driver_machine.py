"""A machine as the NixOS test driver has it, whose guest is a bash of this machine."""

from __future__ import annotations

import base64
import runpy
import shlex
import socket
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["IN_DRIVER", "ShellMachine", "in_driver"]

IN_DRIVER = Path(__file__).parents[2] / "nix/judge/in_driver.py"


def in_driver() -> dict[str, Any]:
    """Return what the program defines that the driver runs, run as the driver does."""
    return runpy.run_path(str(IN_DRIVER))


class ShellMachine:
    """Runs commands as ``Machine.execute`` of nixpkgs' ``nixos/lib/test-driver`` does: through one
    shell behind a socket, standard output alone, decoded with replacements.
    """

    name = "machine"

    def __init__(self, out_dir: Path) -> None:
        self.out_dir = out_dir
        self.executed: list[str] = []
        self.shell, guest = socket.socketpair()
        self._bash = subprocess.Popen(
            ["bash", "--norc"],
            stdin=guest.fileno(),
            stdout=guest.fileno(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        guest.close()

    def execute(self, command: str, timeout: int | None = 900) -> tuple[int, str]:
        self.executed.append(command)
        limit = "" if timeout is None else f"timeout {timeout} "
        text = shlex.quote(f"set -euo pipefail; {command}")
        self.shell.sendall(f"{limit}bash -c {text} | (base64 -w 0; echo)\n".encode())
        output = base64.b64decode(self._line())
        self.shell.sendall(b"echo ${PIPESTATUS[0]}\n")
        return int(self._line()), output.decode(errors="replace")

    def hang(self) -> None:
        """Stop the guest: it says nothing more."""
        self._bash.send_signal(19)

    def end(self) -> None:
        """End the guest."""
        self._bash.kill()
        self._bash.wait()
        self.shell.close()

    def _line(self) -> str:
        parts: list[bytes] = []
        while not (parts and parts[-1].endswith(b"\n")):
            data = self.shell.recv(4096)
            if not data:
                break
            parts.append(data)
        return b"".join(parts).decode()
