"""Numbers that people type."""

from __future__ import annotations

from pytest_nixos.errors import SettingsError

__all__ = ["positive"]


def positive(text: str, *, option: str, unit: str) -> float:
    """Read a number above zero.

    :param option: what it was given to, for the error.
    :param unit: what it counts, for the error.
    :raises SettingsError: if it is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise SettingsError(
            f"{option}: got {text!r}", remedy=f"expected: a number of {unit} above zero"
        )
    return number
