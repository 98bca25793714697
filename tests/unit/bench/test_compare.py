"""A regression against the kept figures is told."""

from __future__ import annotations

from tests.bench.compare import compared
from tests.bench.figures import Section
from tests.bench.pace import pace_ms


def section(
    *rows: tuple[str, ...],
    name: str = "warm",
    header: tuple[str, ...] = ("what", "median", "share"),
    pace_ms: float = 100.0,
) -> Section:
    return Section(
        name=name,
        title="",
        lead="",
        header=header,
        rows=rows,
        machine="an idle machine",
        pace_ms=pace_ms,
    )


def test_what_is_more_than_a_tenth_worse_is_told() -> None:
    kept = section(
        ("later run", "1.00 s (0.9 to 1.1)", "100 %"),
        ("restore", "0.6 s", "60 %"),
        ("memory", "206 MiB", ""),
    )
    now = section(
        ("later run", "1.11 s (1.0 to 1.2)", "100 %"),
        ("restore", "0.65 s", "90 %"),
        ("memory", "300 MiB", ""),
    )
    first, second, summary = compared([kept], [now])
    assert first == "warm: later run, median: 1.11 s, was 1 s (+11%)"
    assert second == "warm: memory, median: 300 MiB, was 206 MiB (+46%)"
    assert summary == "warm: 2 of 3 figures more than 10% worse; kept: an idle machine"


def test_what_is_better_or_as_good_is_not() -> None:
    kept = section(("later run", "1.00 s", ""), ("restore", "0.600 s", ""))
    assert list(
        compared([kept], [section(("later run", "1.10 s", ""), ("restore", "0.1 s", ""))])
    ) == ["warm: 0 of 2 figures more than 10% worse; kept: an idle machine"]


def test_other_tools_and_counts_are_not_ours() -> None:
    header = ("command", "pytest-nixos", "testinfra, ssh backend as it is")
    kept = section(
        ("`true` of 361", "16.2 ms", "600 ms"),
        ("12 facts, testinfra over ssh", "1 s", ""),
        header=header,
    )
    now = section(
        ("`true` of 365", "32.4 ms", "900 ms"),
        ("12 facts, testinfra over ssh", "9 s", ""),
        header=header,
    )
    assert (
        next(compared([kept], [now]))
        == "warm: `true` of N, pytest-nixos: 32.4 ms, was 16.2 ms (+100%)"
    )
    assert len(list(compared([kept], [now]))) == 2


def test_what_cannot_be_compared_is_said() -> None:
    assert list(compared([], [section(("a", "1 s", ""))])) == [
        "warm: no figures are kept to compare with"
    ]
    lines = list(
        compared([section(("a", "1 s", ""), ("b", "1 s", ""))], [section(("a", "1 s", ""))])
    )
    assert lines[-1] == "warm: 1 kept figures were not measured now"


ROWS = (("later run", "1.00 s", ""), ("memory", "200 MiB", ""))


def test_a_slower_machine_is_no_regression() -> None:
    kept = section(*ROWS)
    as_slow = section(("later run", "1.55 s", ""), ("memory", "200 MiB", ""), pace_ms=150.0)
    assert list(compared([kept], [as_slow])) == [
        "warm: this machine takes 1.5 times as long for the same work: times are scaled by that",
        "warm: 0 of 2 figures more than 10% worse; kept: an idle machine",
    ]


def test_a_regression_is_seen_on_a_slower_machine_and_on_a_faster_one() -> None:
    kept = section(*ROWS)
    slower = section(("later run", "1.80 s", ""), ("memory", "300 MiB", ""), pace_ms=150.0)
    lines = list(compared([kept], [slower]))
    assert lines[0] == "warm: later run, median: 1.8 s, was 1 here as 1.5 s (+20%)"
    assert lines[1] == "warm: memory, median: 300 MiB, was 200 MiB (+50%)"
    faster = section(("later run", "0.80 s", ""), ("memory", "200 MiB", ""), pace_ms=66.7)
    assert "(+20%)" in next(compared([kept], [faster]))


def test_machines_that_cannot_be_compared_are_said() -> None:
    far = section(*ROWS, pace_ms=300.0)
    assert "too far apart, measure both on one" in next(compared([section(*ROWS)], [far]))
    unknown = section(*ROWS, pace_ms=0.0)
    assert "is not known: times are compared as they are" in next(compared([unknown], [far]))


def test_the_pace_is_of_work_that_is_done() -> None:
    assert 1.0 < pace_ms(tries=1) < 60_000.0
