"""The root shell that a node of a NixOS test has: what it boots with is what the test boots, so our
channel is started there by that shell, and not by a unit of the node's.

nixpkgs' ``test-instrumentation.nix`` runs a bash on ``/dev/hvc0`` and says so in a line; here as with
the test driver, QEMU connects it to a Unix socket.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from pathlib import Path

__all__ = ["Backdoor", "backdoor_argv"]

_BUS = "pytest-nixos-console"
_READY = b"Spawning backdoor root shell..."
_SCRIPT = "/run/pytest-nixos-channel.bash"
_LOOK_S = 0.2
_CHUNK = 4096

# As the unit that other machines get, see instrumentation.nix.
_PROPERTIES = (
    "DefaultDependencies=no",
    "IgnoreOnIsolate=yes",
    "StartLimitIntervalSec=0",
    "Restart=always",
    "RestartSec=200ms",
    "KillMode=control-group",
    "TimeoutStopSec=5s",
    "Slice=-.slice",
    "TasksMax=infinity",
    "LimitNOFILE=65536:524288",
    "OOMScoreAdjust=-1000",
    "OOMPolicy=continue",
    "IgnoreSIGPIPE=no",
)


def backdoor_argv(run_dir: Path) -> tuple[str, ...]:
    """Build the QEMU arguments that give a guest its ``/dev/hvc0``."""
    return (
        *("-device", f"virtio-serial-pci,id={_BUS}"),
        *("-chardev", f"socket,id={_BUS},path={_socket(run_dir)},server=on,wait=off"),
        *("-device", f"virtconsole,bus={_BUS}.0,chardev={_BUS}"),
    )


class Backdoor:
    """Starts the root command channel in a guest, as often as it boots; a context manager.

    :param script: the bash program that serves the channel.
    """

    def __init__(self, run_dir: Path, script: str) -> None:
        self._path = _socket(run_dir)
        self._order = _order(script)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _serve(self) -> None:
        while not self._over.wait(_LOOK_S):
            # QEMU is not there yet, or not any more: it may be switched on again.
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as shell:
                shell.connect(str(self._path))
                shell.settimeout(_LOOK_S)
                self._listen(shell)

    def _listen(self, shell: socket.socket) -> None:
        said = b""
        while not self._over.is_set():
            try:
                data = shell.recv(_CHUNK)
            except TimeoutError:
                continue
            if not data:
                return
            said = (said + data)[-_CHUNK:]
            if _READY in said:
                said = b""
                shell.settimeout(None)
                shell.sendall(self._order)
                shell.settimeout(_LOOK_S)


def _order(script: str) -> bytes:
    """Return the line that starts `script` as a service of the guest."""
    text = base64.b64encode(script.encode()).decode()
    properties = " ".join(f"-p {one}" for one in _PROPERTIES)
    return (
        f"printf %s {text} | base64 -d >{_SCRIPT}; systemctl reset-failed pytest-nixos-channel 2>/dev/null; "
        f"systemd-run --quiet --collect --unit=pytest-nixos-channel {properties} "
        f'--setenv=PATH="$PATH" "$BASH" {_SCRIPT}\n'
    ).encode()


def _socket(run_dir: Path) -> Path:
    return run_dir / "shell.sock"
