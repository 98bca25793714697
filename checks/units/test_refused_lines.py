"""Lines of configuration files that were refused, and done without."""

from __future__ import annotations

import pytest

from pytest_nixos import (
    Evidence,
    HostConfig,
    Machine,
    Observations,
    not_applicable,
    observe,
)


@pytest.mark.nixos_control("UNIT-013")
def test_no_line_of_configuration_was_refused(
    nixos_machine: Machine,
    nixos_host_config: HostConfig,
    nixos_observations: Observations,
    nixos_evidence: Evidence,
) -> None:
    seen = nixos_observations.of(observe.refused_lines())
    console = observe.refused_on_console(line.text for line in nixos_machine.console.lines)
    said = sorted({*seen.lines, *console})
    # A VM has parameters of its own beside those of its host.
    refused = [line for line in said if line.is_of(nixos_host_config.kernel_params)]
    nixos_evidence.expect([])
    nixos_evidence.observe([str(line) for line in refused])
    if not refused and not seen.answered:
        not_applicable("unknown: the journal of this boot cannot be read")
    if all(line.option for line in refused):
        # What a guest says stays within a line of a comment.
        nixos_evidence.remedy = "\n".join(
            f"# Correct {line.option}, which {'names' if line.unit else 'writes'} {line.file}: {' '.join(line.text.split())}"
            for line in refused
        )
    assert not refused, "refused, and done without: " + "; ".join(map(str, refused))
