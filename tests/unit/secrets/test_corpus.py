"""The rate on a labelled corpus, and what a hit may show."""

from __future__ import annotations

import time

from pytest_nixos.secrets.hit import masked
from pytest_nixos.secrets.scan import find_secrets
from tests.unit.secrets import corpus

#: The first two were there while the rules were made; the last was written afterwards and no rule was changed for it.
TUNED = ("keys-and-tokens.txt", "names-and-values.txt")


def _rates(files: tuple[str, ...]) -> tuple[float, float, int, str]:
    """Return recall, precision, the number of lines that count, and which of them were judged wrongly."""
    right = missed = false = lines = 0
    wrong = []
    for case in (case for file in files for case in corpus.read(file)):
        hits = {hit.line for hit in find_secrets(case.text, name=case.name) if not hit.placeholder}
        hits &= case.counted
        lines += len(case.counted)
        right += len(hits & case.secret)
        missed += len(case.secret - hits)
        false += len(hits - case.secret)
        wrong += [f"{case.name}:{n}" for n in sorted(hits ^ case.secret)]
    return right / (right + missed), right / (right + false), lines, ", ".join(wrong)


def test_recall_and_precision_on_the_corpus(record_property: object) -> None:
    recall, precision, lines, wrong = _rates(TUNED)
    assert callable(record_property)
    record_property("secrets", f"recall {recall:.3f}, precision {precision:.3f}, {lines} lines")
    assert lines >= 300
    assert recall >= 0.95, wrong
    assert precision >= 0.95, wrong


def test_a_hit_shows_at_most_four_characters_and_a_quarter() -> None:
    for file in TUNED:
        for case in corpus.read(file):
            for hit in find_secrets(case.text, name=case.name):
                assert len(hit.shown) <= 5
                assert hit.shown.endswith("…")
    assert masked("hunter2") == "h…"
    assert masked("abc") == "…"
    assert masked("a" * 40) == "aaaa…"


def test_a_long_line_is_read_whole_and_soon() -> None:
    size = 60_000
    text = f"{'password=' * (size // 9)}{'://a:' * (size // 5)} password = {'ab1-' * (size // 4)}"
    started_s = time.monotonic()
    assert find_secrets(f'{text} "password": "Tr0ub4dor-and-3"')[-1].shown == "Tr0…"
    assert time.monotonic() - started_s < 20
