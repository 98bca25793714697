"""Whether half of this machine's memory stays free."""

from __future__ import annotations

import pytest

from pytest_nixos.local import memory


@pytest.mark.parametrize(
    ("available", "total", "wanted", "stays"),
    [
        (8, 16, 0, True),
        (7, 16, 0, False),
        (12, 16, 4, True),
        (12, 16, 5, False),
        (None, 16, 0, False),
        (16, None, 0, False),
    ],
)
def test_half_stays_free(
    monkeypatch: pytest.MonkeyPatch,
    available: int | None,
    total: int | None,
    wanted: int,
    stays: bool,
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: available)
    monkeypatch.setattr(memory, "total_bytes", lambda: total)
    assert memory.leaves_half_free(wanted) is stays
