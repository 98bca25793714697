"""Runs as a test beside the machine: more machines of its host, how soon each answers and what
they weigh.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.errors import NixosError
from pytest_nixos.plugin.machines.launch import Launch
from pytest_nixos.plugin.stash import PROGRESS, SESSION
from tests.bench.inside.machines import memory_mib

SIZES = (1, 2) if os.environ.get("PYTEST_NIXOS_BENCH_QUICK") else (1, 4, 8, 16)


def test_clones(nixos_machine: Any, request: pytest.FixtureRequest) -> None:
    nixos_machine.run("true")
    config = request.config
    session, progress = config.stash[SESSION], config.stash[PROGRESS]
    (key,) = session.host_keys
    starts_s: list[float] = []
    weighs_mib: dict[int, float] = {1: memory_mib()}
    refused = ""
    with ExitStack() as stack:
        for number in range(2, max(SIZES) + 1):
            started_s = time.monotonic()
            try:
                clone = stack.enter_context(Launch(session, key, progress=progress, config=config))
            except NixosError as err:
                refused = str(err)
                break
            assert clone.run("true").succeeded
            starts_s.append(time.monotonic() - started_s)
            if number in SIZES:
                weighs_mib[number] = memory_mib()
    Path(os.environ["PYTEST_NIXOS_BENCH_OUT"]).write_text(
        json.dumps({"starts_s": starts_s, "memory_mib": weighs_mib, "refused": refused})
    )
