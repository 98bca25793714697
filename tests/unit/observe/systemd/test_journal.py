"""Journal entries from ``journalctl --output=json``, whose fields may be text, bytes, lists or
null.
"""

from __future__ import annotations

import json

from pytest_nixos.observe import JournalEntry, recent_journal
from pytest_nixos.observe.base import ProbeOutput


def entries(*lines: object) -> list[JournalEntry]:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return list(recent_journal(5).parse(ProbeOutput(stdout=text.encode(), exit_status=0)))


def test_an_entry_says_when_who_how_bad_and_what() -> None:
    found = entries(
        {
            "__REALTIME_TIMESTAMP": "1790000000500000",
            "PRIORITY": "3",
            "_SYSTEMD_UNIT": "web.service",
            "SYSLOG_IDENTIFIER": "web",
            "MESSAGE": "no such file",
        }
    )
    assert found == [
        JournalEntry(
            time_s=1790000000.5,
            unit="web.service",
            source="web",
            priority=3,
            message="no such file",
        )
    ]


def test_systemds_own_messages_belong_to_the_unit_that_they_are_about() -> None:
    (entry,) = entries({"_SYSTEMD_UNIT": "init.scope", "UNIT": "web.service", "MESSAGE": "Failed"})
    assert entry.unit == "web.service"
    assert entry.priority == 6


def test_bytes_several_values_and_null_are_read() -> None:
    found = entries(
        {"MESSAGE": [104, 105, 255]}, {"MESSAGE": ["first", "second"]}, {"MESSAGE": None}
    )
    assert [entry.message for entry in found] == ["hi\ufffd", "first", ""]


def test_a_long_message_is_cut_and_a_cut_line_left_out() -> None:
    found = entries('SAGE": "cut"}', {"MESSAGE": "x" * 5000, "PRIORITY": "9"}, "[]")
    assert [len(entry.message) for entry in found] == [1000]
    assert found[0].priority == 6


def test_seconds_are_rounded_up() -> None:
    assert "--since=-3s " in recent_journal(2.1).script
