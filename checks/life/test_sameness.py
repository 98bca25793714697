"""A system that was switched to, held against the same generation freshly booted."""

from __future__ import annotations

import pytest

from pytest_nixos import Evidence

from .changes import EVERYTHING
from .stage import Stage, base_stage  # noqa: F401 - a fixture

pytestmark = [
    pytest.mark.nixos_destructive,
    pytest.mark.nixos_requires("boot-loader", "container"),
]

_MOST_TOLD = 10


@pytest.mark.nixos_control("RBK-022")
def test_switched_equals_freshly_booted(stage: Stage, nixos_evidence: Evidence) -> None:
    from pytest_nixos import against_fresh_boot

    life = stage.reset()
    life.switch(stage.build(EVERYTHING.values))
    stage.tell("comparing what was switched to with a boot of it")
    found = against_fresh_boot(stage.machine, life)
    stage.reset()
    told = [str(difference) for difference in found if not difference.by_design]
    nixos_evidence.expect([])
    nixos_evidence.observe(told)
    by_design = [str(difference) for difference in found if difference.by_design]
    nixos_evidence.attach("left to the next boot by design", "\n".join(by_design))
    more = f"\nand {len(told) - _MOST_TOLD} more" if len(told) > _MOST_TOLD else ""
    assert not told, "otherwise than after a boot:\n" + "\n".join(told[:_MOST_TOLD]) + more
