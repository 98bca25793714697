"""The HTML page in a real browser: Debian's Chromium, driven by playwright, where both are there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.place import How, Place
from pytest_nixos.report import RunFacts
from pytest_nixos.report.formats.html_report import write_html
from pytest_nixos.report.formats.matrix import by_standard
from tests.unit.report.comparing.test_compare import finding

RUN = RunFacts(
    plugin_version="0.1",
    started_at="2026-11-21T01:00:00+00:00",
    duration_s=1.5,
    hosts={"web": {"release": "24.05"}, "db": {"release": "24.05"}},
    fail_on="LOW",
)
EVIL = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
)
FINDINGS = (
    finding(
        reason=EVIL,
        observed={EVIL: EVIL},
        attachments={EVIL: EVIL},
        severity=Severity.HIGH,
        explains=("B-1",),
        places=(Place(option="a", how=How.SET, file="hosts/web.nix", line=12),),
        references={"stig": ("V-1", "V-2")},
    ),
    finding("B-1", caused_by=("A-1",), suite="other"),
    finding("C-1", Outcome.PASSED, host="db"),
    finding(
        "D-1", Outcome.NOT_APPLICABLE, reason="judged by hand: ask", references={"stig": ("V-3",)}
    ),
)


class Shown:
    """A report in the browser, with what went wrong in it."""

    def __init__(self, browser: Any, path: Path, findings: tuple[Finding, ...]) -> None:
        path.write_text(write_html(findings, RUN))
        self.page = browser.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "console",
            lambda said: self.errors.append(said.text) if said.type == "error" else None,
        )
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    @property
    def listed(self) -> list[str]:
        return list(self.page.locator("#list summary b").all_inner_texts())


@pytest.fixture
def shown(browser: Any, tmp_path: Path) -> Iterator[Shown]:
    found = Shown(browser, tmp_path / "report.html", FINDINGS)
    yield found
    assert found.errors == []
    assert [url for url in found.requests if not url.startswith("file:")] == []
    found.page.close()


def test_filters_choose_what_is_listed(shown: Shown) -> None:
    page = shown.page
    assert shown.listed == ["A-1", "B-1"], "what is to be mended, at first"
    page.select_option("#outcome", "")
    assert shown.listed == ["A-1", "B-1", "C-1", "D-1"]
    page.select_option("#host", "db")
    assert shown.listed == ["C-1"]
    page.select_option("#host", "")
    page.select_option("#suite", "other")
    assert shown.listed == ["B-1"]
    page.select_option("#suite", "")
    page.fill("#query", "d-1 hand")
    page.locator("#list summary").nth(1).wait_for(state="detached")
    assert shown.listed == ["D-1"]
    assert "1 of 4 findings" in page.locator("#count").inner_text()


def test_entry_unfolds_by_keyboard_and_shows_its_evidence(shown: Shown) -> None:
    page = shown.page
    page.locator("#list summary").first.focus()
    page.keyboard.press("Enter")
    body = page.locator("#list details dl").first
    body.wait_for()
    assert "hosts/web.nix:12" in body.inner_text()


def test_hostile_text_is_shown_and_does_nothing(shown: Shown) -> None:
    page = shown.page
    page.click("#unfold")
    page.locator("#list details dl").first.wait_for()
    assert "onerror" in page.locator("#list").inner_text()
    assert page.locator("#list img, #list script").count() == 0
    assert page.title().startswith("NixOS findings")


def test_policy_refuses_any_other_script(browser: Any, tmp_path: Path) -> None:
    found = Shown(browser, tmp_path / "report.html", FINDINGS)
    refused = found.page.evaluate(
        """() => {
            const script = document.createElement('script');
            script.textContent = "document.title = 'owned'";
            document.body.append(script);
            return document.title;
        }"""
    )
    assert refused.startswith("NixOS findings")
    assert any("Content Security Policy" in error for error in found.errors)


def test_groups_put_echoes_below_their_cause(shown: Shown) -> None:
    shown.page.select_option("#group", "cause")
    assert shown.page.locator("#list h3").all_inner_texts() == ["web: A-1"]


def test_matrix_leads_to_the_findings_of_a_suite(shown: Shown) -> None:
    shown.page.click("button[data-host=web][data-suite=other]")
    assert shown.listed == ["B-1"]


def test_paper_has_all_that_is_to_be_mended_unfolded(shown: Shown) -> None:
    shown.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert shown.page.locator("#list details[open] dl").count() == 2


def test_page_without_scripts_tells_what_is_to_be_mended() -> None:
    page = write_html(FINDINGS, RUN)
    fallback = page[page.index("<noscript>") : page.index("</noscript>")]
    assert "A-1" in fallback and "C-1" not in fallback and "<img" not in fallback


def test_clauses_are_counted_and_not_controls() -> None:
    page = write_html(FINDINGS, RUN)
    assert "2 of 2 failed, 0 n/a, 1 by hand" in page


def test_a_clause_that_a_person_has_to_finish_has_not_passed() -> None:
    references = {"stig": ("V-3",)}
    halves = (FINDINGS[3], finding("E-1", Outcome.PASSED, references=references))
    cell = by_standard(halves)["web"]["stig"]
    assert (cell.passed, cell.by_hand) == (0, 1)


def test_frameworks_are_told_as_evidence() -> None:
    told = "Of iso27001: clauses for which the verdicts about a host give evidence."
    assert told not in write_html(FINDINGS, RUN)
    assert told in write_html((finding(references={"iso27001": ("A.8.9",)}),), RUN)


def test_hundred_hosts_are_shown_soon(browser: Any, tmp_path: Path) -> None:
    many = tuple(
        finding(
            f"C-{control}",
            Outcome.FAILED if (control + host) % 5 == 0 else Outcome.PASSED,
            host=f"host-{host}",
            reason=f"is {control} on {host}",
            remedy=f"services.x{control} = true;" * 5,
            why=f"Expected is {control}. True on the machine is {host}." * 3,
            observed={"machine": f"{host}-{control}"},
        )
        for host in range(100)
        for control in range(451)
    )
    path = tmp_path / "report.html"
    path.write_text(write_html(many, RUN))
    assert path.stat().st_size < 15_000_000
    page = browser.new_page()
    began_s = time.monotonic()
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    took_s = page.evaluate("performance.now()") / 1000
    # The goal is 2 s on an idle machine; a test must not fail for a busy one.
    assert took_s < 10, f"{took_s:.1f} s, {time.monotonic() - began_s:.1f} s by the clock"
    assert page.locator("#list summary").count() == 200


def test_screens_are_pictures_in_the_page_and_too_many_are_left_out() -> None:
    evil = {"when": 'x" onerror="alert(1)', "png": "iVBORw0KGgo="}
    forged = {"when": "forged", "png": '"><script>'}
    large = [{"when": f"picture {n}", "png": "A" * (3 << 20)} for n in range(3)]
    facts = {"release": "24.05", "screens": [evil, forged]}
    page = write_html((), msgspec.structs.replace(RUN, hosts={"web": facts}))
    full = write_html((), msgspec.structs.replace(RUN, hosts={"web": {**facts, "screens": large}}))

    assert 'src="data:image/png;base64,iVBORw0KGgo="' in page
    assert 'alt="the screen of web x&#34; onerror=&#34;alert(1)"' in page
    assert page.count("<img") == 1
    assert "forged" not in page
    assert "img-src data:" in page
    assert full.count("<img") == 1
    assert "2 more pictures are left out" in full
    assert "<img" not in write_html((), RUN)
