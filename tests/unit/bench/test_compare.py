"""A regression against the kept figures is told."""

from __future__ import annotations

from tests.bench.compare import compared
from tests.bench.figures import Section


def section(
    *rows: tuple[str, ...],
    name: str = "warm",
    header: tuple[str, ...] = ("what", "median", "share"),
) -> Section:
    return Section(
        name=name, title="", lead="", header=header, rows=rows, machine="an idle machine"
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
