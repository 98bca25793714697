"""Lines of a crontab that cron cannot read."""

from __future__ import annotations

import pytest

from pytest_nixos.observe.cron_line import cron_accounts, unread_jobs


@pytest.mark.parametrize(
    "line",
    [
        "*/5 * * * * root date",
        "0 3 1,15 jan-mar Mon-Fri root tar -c /srv > /dev/null",
        "0-59/2 0-23 * 12 7 alice true",
        "@daily root true",
        "SHELL=/bin/bash",
        "MAILTO = ops@example.org",
        "# 99 * * * * root true",
        "",
    ],
)
def test_lines_that_cron_reads(line: str) -> None:
    assert list(unread_jobs(line)) == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("60 * * * * root true", "60 is no minute"),
        ("0 24 * * * root true", "24 is no hour"),
        ("0 3 0 * * root true", "0 is no day of the month"),
        ("0 3 * 13 * root true", "13 is no month"),
        ("0 3 * * 8 root true", "8 is no day of the week"),
        ("0 3 * * mond root true", "mond is no day of the week"),
        ("*/0 * * * * root true", "*/0 is no minute"),
        ("5, * * * * root true", "5, is no minute"),
        ("0 3 * * root true", "a job has five fields of time, an account and a command"),
        ("@dayly root true", "@dayly is no time that cron knows"),
        ("@daily root", "a job has a time, an account and a command"),
    ],
)
def test_lines_that_it_cannot(line: str, why: str) -> None:
    assert list(unread_jobs(f"SHELL=/bin/sh\n{line}")) == [(2, why)]


def test_whose_jobs_they_are() -> None:
    text = "A=1\n*/5 * * * * alice date\n@daily bob true\n0 3 * * cut"
    assert list(cron_accounts(text)) == ["alice", "bob"]
