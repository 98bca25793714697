"""The pages for people who use a keyboard, a screen reader, a dark screen or paper: axe-core's rules,
and what no rule of it says.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.findings import Outcome
from pytest_nixos.report.comparing.compare import compare
from pytest_nixos.report.comparing.comparison_text import comparison_html
from pytest_nixos.report.comparing.trend import trend_html, trend_points
from pytest_nixos.report.formats.html_report import write_html
from tests.golden.test_reports import FINDINGS, RUN
from tests.unit.report.comparing.test_compare import finding
from tests.unit.report.comparing.test_trend import run
from tests.unit.report.formats import test_html_report as small

#: All that the page has: boots, changes, secrets, waived and unjudged findings, hostile text.
REPORT = write_html((*FINDINGS, *small.FINDINGS), RUN)
#: How grave a fault is, in axe-core's words.
GRAVE = ("serious", "critical")


@pytest.fixture(scope="module")
def axe() -> str:
    pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    return files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")


def pages() -> dict[str, str]:
    before, after = (finding("A"), finding("B")), (finding("B"), finding("C"))
    compared = compare(before, after)
    return {
        "report": REPORT,
        "comparison": comparison_html(compared, {"units": ["+ x"]}, title="a to b"),
        "trend": trend_html(trend_points([run(1, *before), run(2, *after, boot=3.0)])),
    }


def faults(page: Any, axe: str) -> list[str]:
    page.evaluate(axe)
    found = page.evaluate("axe.run()")
    assert found["passes"], "the rules have been applied"
    return [
        f"{fault['impact']} {fault['id']}: {node['html']} {node['failureSummary']}"
        for fault in found["violations"]
        if fault["impact"] in GRAVE
        for node in fault["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["report", "comparison", "trend"])
def test_a_page_has_no_serious_fault(
    browser: Any, tmp_path: Path, axe: str, name: str, scheme: str
) -> None:
    path = tmp_path / "page.html"
    path.write_text(pages()[name])
    # The page's own policy keeps scripts out, axe-core too.
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(path.as_uri())
    if name == "report":
        page.select_option("#outcome", "")
        page.select_option("#group", "cause")
        page.click("#unfold")
        page.locator("#list dl").first.wait_for()
        for details in page.locator("main > details > summary").all():
            details.click()
    assert faults(page, axe) == []
    context.close()


def test_the_rules_find_a_fault(browser: Any, axe: str) -> None:
    page = browser.new_page()
    page.set_content("<html lang=en><title>x</title><main style='color:#ccc'>pale</main>")
    assert any("color-contrast" in fault for fault in faults(page, axe))
    page.close()


@pytest.fixture
def shown(browser: Any, tmp_path: Path) -> Any:
    path = tmp_path / "report.html"
    path.write_text(REPORT)
    page = browser.new_page()
    page.goto(path.as_uri())
    yield page
    page.close()


def test_all_that_can_be_clicked_can_be_reached_by_keyboard(shown: Any) -> None:
    reached = set()
    for _ in range(80):
        shown.keyboard.press("Tab")
        reached.add(
            shown.evaluate(
                "document.activeElement.id || document.activeElement.dataset.suite"
                " || document.activeElement.tagName"
            )
        )
    wanted = {"query", "host", "suite", "severity", "outcome", "group", "unfold", "boot", "SUMMARY"}
    assert wanted <= reached


def test_a_matrix_button_is_pressed_by_keyboard(shown: Any) -> None:
    shown.locator("button[data-suite=boot]").first.focus()
    shown.keyboard.press("Enter")
    assert shown.locator("#suite").input_value() == "boot"
    assert "findings" in shown.locator("#count").inner_text()
    assert shown.locator("#count").get_attribute("role") == "status", "said by a screen reader"


def test_paper_is_light_and_has_no_controls(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(REPORT)
    page = browser.new_page(color_scheme="dark")
    page.goto(path.as_uri())
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert dark != "rgb(255, 255, 255)"
    assert not page.locator("form").is_visible()
    page.close()


def test_no_outcome_is_told_by_colour_alone(shown: Any) -> None:
    shown.select_option("#outcome", "")
    said = shown.locator("#list summary").all_inner_texts()
    words = {outcome.value for outcome in Outcome}
    assert said and all(any(word in line for word in words) for line in said)
