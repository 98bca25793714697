"""What a machine has instead of what its host declares, in the terminal's summary."""

from __future__ import annotations

from pytest_nixos.report.summary.changes import change_lines

FACTS = {
    "changes": [
        {"what": "store", "why": "it comes as an image", "options": ["a", "b"]},
        {"what": "clock", "why": "a guest takes it from here", "options": ["c"]},
    ]
}


def test_one_line_a_host_and_all_of_them_where_asked() -> None:
    (line,) = change_lines("web", FACTS, whole=False)
    assert line == "web: 3 options differ from the host as declared (store; clock; -v says why)"
    whole = change_lines("web", FACTS, whole=True)
    assert whole[0] == "web: 3 options differ from the host as declared:"
    assert whole[1] == "  store (2): it comes as an image"
    assert len(whole) == 3


def test_a_host_without_a_machine_says_nothing() -> None:
    assert change_lines("web", {}, whole=True) == []
    assert change_lines("web", {"changes": []}, whole=False) == []
