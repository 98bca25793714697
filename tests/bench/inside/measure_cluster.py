"""Runs as a test: three VMs of the example flake on one network, how soon they are all there and
what they weigh and use.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from tests.bench.inside.machines import memory_mib, processor_s

MEMBERS = ("nats-1", "nats-2", "nats-3")


def test_cluster(nixos_cluster: Any) -> None:
    started_s, (own_s, _) = time.monotonic(), processor_s()
    cluster = nixos_cluster(*MEMBERS, backend="vm")
    took_s = time.monotonic() - started_s
    now_s, machines_s = processor_s()
    assert all(machine.run("true").succeeded for machine in cluster.values())
    told = {
        "took_s": took_s,
        "own_processor_s": now_s - own_s,
        "machines_processor_s": machines_s,
        "memory_mib": memory_mib(),
    }
    Path(os.environ["PYTEST_NIXOS_BENCH_OUT"]).write_text(json.dumps(told))
