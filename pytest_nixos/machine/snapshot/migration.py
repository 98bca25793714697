"""QEMU's state to a file and back, by QMP; the guest's memory stays where it is, in a file of
its own.

Source: QEMU's QMP reference, ``migrate``, ``migrate-incoming``, ``migrate-set-capabilities``
(``x-ignore-shared``), ``migrate-set-parameters`` (``announce-rounds``).
"""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.qemu.qmp import QmpMonitor

__all__ = ["load_state", "save_state"]

_LIMIT_S = 60.0
_LOOK_S = 0.004


def save_state(qmp: QmpMonitor, state: Path, *, deadline: Deadline) -> None:
    """Stop the guest and write the state of its devices; the guest stays stopped.

    :raises MachineError: if QEMU refuses or cannot write it; ``cont`` lets the guest go on.
    """
    limit = deadline.within(_LIMIT_S)
    qmp.execute("stop", deadline=limit)
    _ignore_shared(qmp, limit)
    uri = f"exec:exec cat > {shlex.quote(str(state))}"
    qmp.execute("migrate", {"uri": uri}, deadline=limit)
    _await(qmp, limit)


def load_state(qmp: QmpMonitor, state: Path, *, deadline: Deadline) -> None:
    """Read the state of a guest's devices in a QEMU that waits for it, and let the guest go on.

    :raises MachineError: if QEMU refuses it.
    """
    limit = deadline.within(_LIMIT_S)
    _ignore_shared(qmp, limit)
    # A clone stands where nobody has known it: that its cards announce themselves wakes every daemon of its network.
    qmp.execute("migrate-set-parameters", {"announce-rounds": 0}, deadline=limit)
    uri = f"exec:exec cat < {shlex.quote(str(state))}"
    qmp.execute("migrate-incoming", {"uri": uri}, deadline=limit)
    _await(qmp, limit)
    qmp.execute("cont", deadline=limit)


def _ignore_shared(qmp: QmpMonitor, deadline: Deadline) -> None:
    capabilities = [{"capability": "x-ignore-shared", "state": True}]
    qmp.execute("migrate-set-capabilities", {"capabilities": capabilities}, deadline=deadline)


def _await(qmp: QmpMonitor, deadline: Deadline) -> None:
    while True:
        answer: dict[str, Any] = qmp.execute("query-migrate", deadline=deadline)
        status = answer.get("status")
        if status == "completed":
            return
        if status in ("failed", "cancelled") or deadline.expired:
            raise MachineError(
                f"QEMU's migration is {status}: {answer.get('error-desc', 'no reason given')}",
                remedy="nothing: the machine is used without a snapshot",
            )
        time.sleep(_LOOK_S)
