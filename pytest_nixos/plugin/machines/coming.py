"""Which tests come after the one that runs, for machines that are made ready for them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

__all__ = ["ComingTests"]

# A machine is made in the time of so many tests that judge what was read before; one that waits longer than
# it must takes memory from the others.
_TESTS_AHEAD = 20


class ComingTests:
    """The order in which the tests of a run come."""

    def __init__(self, config: pytest.Config) -> None:
        self._knows_one = hasattr(config, "workerinput")
        self._places: dict[pytest.Item, int] = {}

    def learn(self, session: pytest.Session) -> None:
        """Note the order, once all tests are collected."""
        self._places = {item: place for place, item in enumerate(session.items)}

    def after(self, nextitem: pytest.Item | None) -> Sequence[pytest.Item]:
        """Return `nextitem` and those after it, twenty at most; a worker of xdist knows that one alone."""
        if nextitem is None:
            return ()
        place = self._places.get(nextitem)
        if place is None or self._knows_one:
            return (nextitem,)
        return nextitem.session.items[place : place + _TESTS_AHEAD]
