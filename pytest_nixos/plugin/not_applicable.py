"""What a check can say besides passing and failing."""

from __future__ import annotations

from typing import NoReturn

import pytest

__all__ = ["NOT_APPLICABLE", "not_applicable"]

NOT_APPLICABLE = "not applicable: "


def not_applicable(reason: str) -> NoReturn:
    """End a check because the host has nothing that it could judge, or the backend cannot show it.

    :param reason: completes the sentence "not applicable: ...".
    """
    pytest.skip(f"{NOT_APPLICABLE}{reason}")
