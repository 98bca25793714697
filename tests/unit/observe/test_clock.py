"""The time service."""

from __future__ import annotations

from pytest_nixos.observe.clock import CLOCK_FACTS


def test_spans_of_time() -> None:
    parse = CLOCK_FACTS["timesync"].parse
    assert parse("PollIntervalMaxUSec=34min 8s\nSystemNTPServers=a b\n") == {
        "servers": ["a", "b"],
        "poll-max-s": 2048.0,
    }
