"""A keeper goes on alone: nothing of the run that ordered it stays open by it."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pytest_nixos.machine.keeper import order

LIMIT_S = 10.0
# Stands for the keeper, which needs a snapshot: what it is started with is what is tried.
KEEPER = """
import os, time
open(os.environ["PID_FIFO"], "w").write(str(os.getpid()))
time.sleep(600)
"""


def test_a_pipe_of_the_run_ends_while_the_keeper_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stands_for_it.py").write_text(KEEPER)
    os.mkfifo(tmp_path / "pid")
    for name, value in {
        "PYTHONPATH": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "PID_FIFO": str(tmp_path / "pid"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(order, "_MODULE", "stands_for_it")
    monkeypatch.setattr(order, "_pickled", lambda _order: b"")
    ordered = cast("order.SpareOrder", SimpleNamespace(spec=SimpleNamespace(system="/s")))
    read, write = os.pipe()
    os.set_inheritable(write, True)
    order.start_keeper(ordered)
    os.close(write)
    keeper = int((tmp_path / "pid").read_text())
    try:
        assert select.select([read], [], [], LIMIT_S)[0]
        assert os.read(read, 1) == b""
        os.kill(keeper, 0)
    finally:
        os.close(read)
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)
