"""Why a finding is one: a short paragraph of what is declared, what is true, what makes it so, and
what comes of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pytest_nixos.findings import Evidence
from pytest_nixos.place import How, Place
from pytest_nixos.standards.control.model import Control
from pytest_nixos.subject import Subject

__all__ = ["page_of", "why"]

Json = Any
_MOST = 160
_MOST_PLACES = 2


def why(
    control: Control,
    evidence: Evidence,
    *,
    reason: str,
    places: Sequence[Place],
    blames: Sequence[Subject],
) -> str:
    """Return the paragraph; sentences whose facts nobody knows are left out.

    :param evidence: what was expected and observed.
    :param places: where what decides it is set.
    :param blames: what was found broken.
    """
    declared, true = _declared_and_true(evidence)
    sentences = [
        f"Expected is {_short(evidence.expected)}" if evidence.expected not in (None, "") else "",
        f"Declared is {_short(declared)}" if declared is not None else "",
        f"{'True on the machine' if evidence.judged_on != 'config' else 'Evaluated'} is {_short(true)}"
        if true is not None
        else reason,
        _what_makes_it_so(places, blames),
        f"What comes of it: {control.threat}" if control.threat else "",
    ]
    return " ".join(f"{s.rstrip('.')}." for s in sentences if s)


def page_of(control: Control) -> str:
    """Return the control's page below the documentation: ``controls/ssh.md#ssh-001``."""
    return f"controls/{control.suite}.md#{control.id.lower()}"


def _declared_and_true(evidence: Evidence) -> tuple[Json, Json]:
    observed = evidence.observed
    if isinstance(observed, dict) and set(observed) == {"machine", "declared"}:
        return observed["declared"], observed["machine"]
    return None, observed


def _what_makes_it_so(places: Sequence[Place], blames: Sequence[Subject]) -> str:
    said = [p.words for p in places if p.how is not How.HOST][:_MOST_PLACES]
    broken = [str(subject).replace(":", " ", 1) for subject in blames][:_MOST_PLACES]
    parts = [f"{', '.join(broken)} makes it so" if broken else "", "; ".join(said)]
    return "; ".join(part for part in parts if part)


def _short(value: Json) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return text if len(text) <= _MOST else f"{text[:_MOST]}..."
