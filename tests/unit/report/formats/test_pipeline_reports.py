"""Reports for the pages of a pipeline: no text of a guest is markup or a command there."""

from __future__ import annotations

import dataclasses
import json

import msgspec
from markdown_it import MarkdownIt

from pytest_nixos.findings import Finding
from pytest_nixos.report.formats.codequality_report import write_codequality
from pytest_nixos.report.formats.github_report import write_github
from pytest_nixos.report.formats.markdown_report import write_markdown
from tests.golden.test_reports import FINDINGS, RUN

EVIL = "a | b <script>x</script> `c` [d](http://e) *f* @g\n::error::h %0A ~~i~~ \\| j"
WORST = next(finding for finding in FINDINGS if finding.control == "A-3")


def told(**fields: object) -> Finding:
    return dataclasses.replace(WORST, **fields)  # type: ignore[arg-type]  # as the tests name them


def test_a_guests_text_is_no_markdown() -> None:
    text = write_markdown([told(reason=EVIL, host="h|o<b>")], RUN)
    page = MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(text)
    for markup in ("<script", "<a ", "<em>", "<code>", "<s>", "<b>"):
        assert markup not in page
    row = next(line for line in page.split("<tr>") if "A-3" in line)
    assert row.count("<td>") == 6
    assert "a | b &lt;script&gt;x&lt;/script&gt; `c` [d](http://e) *f* @g" in row


def test_a_guests_text_is_no_command() -> None:
    lines = write_github([told(reason=EVIL, host="a,file=b::c")], RUN).splitlines()
    ours = [line for line in lines if "A-3" in line]
    assert ours == [
        "::error file=hosts/w b.nix,line=12,title=a%2Cfile=b%3A%3Cc".replace("%3C", "%3A")
        + "%3A A-3 title of A-3::"
        + EVIL.replace("\n", " ").replace("%", "%25")
    ]
    assert all(line.startswith(("::error ", "::warning ")) for line in lines)


def test_github_is_told_ten_of_a_kind_and_the_worst() -> None:
    many = [told(control=f"X-{n}") for n in range(30)]
    assert write_github(many, msgspec.structs.replace(RUN, hosts={})).count("::error") == 10


def test_what_stopped_a_host_is_on_the_page() -> None:
    run = msgspec.structs.replace(RUN, incomplete=("a worker died",))
    assert "**db**: the machine did not boot" in write_markdown([], run)
    assert "**Not whole**: a worker died" in write_markdown([], run)
    assert "::error title=db::the machine did not boot" in write_github([], run)
    assert "::error title=Not whole::a worker died" in write_github([], run)


def test_no_host_is_no_empty_table() -> None:
    run = msgspec.structs.replace(RUN, hosts={})
    assert "No host was judged." in write_markdown([], run)


def test_gitlab_gets_what_failed_at_its_line() -> None:
    entries = json.loads(write_codequality(FINDINGS, RUN))
    failed = [finding for finding in FINDINGS if finding.failed]
    assert [entry["check_name"] for entry in entries] == [finding.control for finding in failed]
    worst = next(entry for entry in entries if entry["check_name"] == "A-3")
    assert worst["location"] == {"path": "hosts/w b.nix", "lines": {"begin": 12}}
    assert worst["severity"] == "blocker"
    assert len({entry["fingerprint"] for entry in entries}) == len(entries)
