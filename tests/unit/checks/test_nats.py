"""A JetStream group that was founded by members that were saved apart is no fault of the host's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from checks.nats import test_nats as check

NAMES = ("nats-1", "nats-2", "nats-3")


def cluster(*, clones: bool) -> Any:
    return {name: SimpleNamespace(can_reset=clones) for name in NAMES}


@pytest.mark.parametrize(
    ("clones", "port", "sizes", "apart"),
    [
        (True, 8222, (2, 2, None), True),
        (True, 8222, (3, 3, 3), False),
        (True, None, (), True),
        (False, 8222, (2, 2, None), False),
    ],
    ids=["founded by two", "founded by all", "nobody tells", "booted together"],
)
def test_apart(
    monkeypatch: pytest.MonkeyPatch,
    clones: bool,
    port: int | None,
    sizes: tuple[int | None, ...],
    apart: bool,
) -> None:
    told = dict(zip(NAMES, sizes, strict=False))

    def ask(_cluster: Any, name: str, _port: int, path: str) -> dict[str, Any]:
        assert path == "/jsz"
        size = told[name]
        return {} if size is None else {"meta_cluster": {"cluster_size": size}}

    monkeypatch.setattr(check, "_ask", ask)

    assert check._founded_apart(cluster(clones=clones), port) is apart
