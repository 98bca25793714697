"""Findings: the outcome of one control on one host, with evidence; and the ledger that keeps them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Evidence", "Finding", "Outcome", "Severity"]


class Severity(enum.IntEnum):
    """How much a violated control matters; greater is worse."""

    STYLE = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


class Outcome(enum.Enum):
    """What became of one control on one host."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not-applicable"
    WAIVED = "waived"
    ERROR = "error"


@dataclass(slots=True)
class Evidence:
    """What a check saw, collected while it runs.

    :param expected: what had to hold, JSON-able.
    :param observed: what was found, JSON-able.
    :param attachments: name to text (a unit's journal, a ruleset, the console tail).
    """

    expected: Any = None
    observed: Any = None
    attachments: dict[str, str] = field(default_factory=dict)

    def expect(self, expected: Any) -> Any:
        """Record what has to hold, and return it."""
        self.expected = expected
        return expected

    def observe(self, observed: Any) -> Any:
        """Record what was found, and return it."""
        self.observed = observed
        return observed

    def attach(self, name: str, text: str) -> None:
        """Keep `text` with the finding under `name`."""
        self.attachments[name] = text


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Outcome of one control on one host.

    :param judged_on: ``machine``, ``config`` or ``both``.
    :param reason: why it failed, was not applicable, or was waived; one line.
    """

    control: str
    title: str
    suite: str
    host: str
    backend: str
    severity: Severity
    outcome: Outcome
    judged_on: str
    reason: str
    threat: str
    remedy: str
    expected: Any = None
    observed: Any = None
    attachments: Mapping[str, str] = field(default_factory=dict)
    references: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    node_id: str = ""
    duration_s: float = 0.0
