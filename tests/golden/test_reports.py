"""What reports look like, held against files; ``UPDATE_GOLDEN=1`` writes them anew."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import jsonschema
import msgspec
import pytest
from rich.console import Console

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.place import How, Place
from pytest_nixos.report import RunFacts
from pytest_nixos.report.formats.codequality_report import write_codequality
from pytest_nixos.report.formats.github_report import write_github
from pytest_nixos.report.formats.html_report import write_html
from pytest_nixos.report.formats.json_report import json_schema, write_json
from pytest_nixos.report.formats.markdown_report import write_markdown
from pytest_nixos.report.formats.sarif_report import write_sarif
from pytest_nixos.report.summary.causes import explained
from pytest_nixos.report.summary.terminal import failure_lines, print_summary
from pytest_nixos.subject import MACHINE, Subject

HERE = Path(__file__).parent
SCHEMA = HERE.parents[1] / "docs" / "reference" / "report.schema.json"
OLLAMA = Subject.parse("unit:ollama.service")

#: A red one, as PNG.
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)

RUN = RunFacts(
    plugin_version="0.1.0",
    started_at="2026-11-21T01:00:00+00:00",
    duration_s=12.5,
    hosts={
        "web": {
            "ref": "/etc/nixos#web",
            "backend": "vm",
            "release": "24.05",
            "phases_s": {"evaluate": 3.0, "boot": 9.1},
            "changed_options": {"virtualisation.restrictNetwork": [False, True]},
            "changes": [
                {
                    "what": "outside network",
                    "why": "a guest reaches this machine only",
                    "options": ["virtualisation.restrictNetwork"],
                }
            ],
            "circumstances": {"secrets": "12 secrets have test values"},
            "screens": [{"when": "when test_login failed", "png": PIXEL}],
        },
        "db": {
            "ref": "/etc/nixos#db",
            "phases_s": {},
            "failure": "db: kernel panic \x1b[31m\n  | Kernel panic\n  remedy: mend the kernel",
            "why": "the machine did not boot",
        },
    },
    fail_on="MEDIUM",
)


def finding(control: str, severity: Severity, outcome: Outcome, **fields: object) -> Finding:
    values: dict[str, object] = {
        "control": control,
        "title": f"title of {control}",
        "suite": "boot",
        "host": "web",
        "backend": "vm",
        "severity": severity,
        "outcome": outcome,
        "judged_on": "machine",
        "reason": "",
        "threat": "something bad",
        "remedy": "a = 1;\nb = 2;\n",
        "references": {"stig": ("V-1",)},
        **fields,
    }
    return Finding(**values)  # type: ignore[arg-type]  # the table above has the right types


FINDINGS = explained(
    (
        finding(
            "A-1", Severity.LOW, Outcome.FAILED, expected=[], observed=["x.service"], reason="x"
        ),
        finding("A-2", Severity.CRITICAL, Outcome.PASSED),
        finding(
            "A-3",
            Severity.CRITICAL,
            Outcome.FAILED,
            expected="a" * 500,
            observed={"evil": "\x1b[2J\u202etxt"},
            reason="guest text \x1b[31m",
            pressure={"waited": 0.9, "stolen": 0.0, "span_s": 12.5},
            places=(
                Place(
                    option="services.a.b",
                    how=How.SET,
                    file="hosts/w b.nix",
                    line=12,
                    column=3,
                    priority="mkForce",
                ),
                Place(option="c.d", how=How.DEFAULT, file="nixos/c.nix", source="nixpkgs", line=9),
            ),
            attachments={"journal": "\n".join(f"line {n}" for n in range(30)) + "\x07"},
        ),
        finding("A-4", Severity.HIGH, Outcome.ERROR, reason="the guest is gone"),
        finding("A-5", Severity.HIGH, Outcome.NOT_APPLICABLE, reason="nothing there"),
        finding(
            "BOOT-005",
            Severity.LOW,
            Outcome.FAILED,
            expected=5,
            observed={
                "seconds": 8.0,
                "phases": {"kernel": 2.0, "userspace": 6.0},
                "slowest": [{"unit": "<b>evil</b>\x1b.service", "at": 5.0, "took": 4.0}],
                "critical chain": [{"unit": "multi-user.target", "at": 6.0, "took": 0.0}],
            },
            journal=(
                {
                    "time_s": 1790000000.5,
                    "unit": "x.service",
                    "source": "x",
                    "priority": 3,
                    "message": "<script>\u202e",
                },
            ),
        ),
        finding("A-6", Severity.MEDIUM, Outcome.WAIVED, host="db", reason="waived by ops"),
        finding(
            "A-7", Severity.HIGH, Outcome.FAILED, reason="failed: ollama.service", blames=(OLLAMA,)
        ),
        finding(
            "A-8",
            Severity.CRITICAL,
            Outcome.FAILED,
            reason="no answer",
            rests_on=(OLLAMA,),
            judged_on="outside",
        ),
        *(
            finding(
                f"B-{n}",
                Severity.HIGH,
                Outcome.ERROR,
                host="db",
                reason="not judged: the machine did not boot",
                threat="",
                remedy="",
                rests_on=(MACHINE,),
            )
            for n in range(3)
        ),
    )
)


def summary(**options: bool) -> str:
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    print_summary(console, FINDINGS, RUN, **options)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


GOLDEN: dict[str, Callable[[], str]] = {
    "report.json": lambda: write_json(FINDINGS, RUN),
    "report.html": lambda: write_html(FINDINGS, RUN),
    "report.sarif": lambda: write_sarif(FINDINGS, RUN),
    "report.codequality.json": lambda: write_codequality(FINDINGS, RUN),
    "report.github.txt": lambda: write_github(FINDINGS, RUN),
    "report.md": lambda: write_markdown(FINDINGS, RUN),
    "summary.txt": summary,
    "failure.txt": lambda: (
        "\n".join(failure_lines(next(f for f in FINDINGS if f.control == "A-3"))) + "\n"
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_report_is_as_before(name: str) -> None:
    text = GOLDEN[name]()
    path = HERE / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", GOLDEN)
def test_no_guest_text_reaches_a_terminal_unescaped(name: str) -> None:
    text = GOLDEN[name]()
    assert not {"\x1b", "\x07", "\u202e"} & set(text)


def test_finding_survives_json() -> None:
    for one in FINDINGS:
        assert Finding.from_json(one.to_json()) == one


def test_code_scanning_takes_the_tags_of_a_rule_and_all_references_are_kept() -> None:
    many = {"nist": tuple(f"AC-{n}" for n in range(1, 31)), "stig": ("V-1",)}
    document = json.loads(
        write_sarif([finding("A-1", Severity.LOW, Outcome.FAILED, references=many)], RUN)
    )
    (rule,) = document["runs"][0]["tool"]["driver"]["rules"]
    assert len(rule["properties"]["tags"]) == 10
    assert rule["properties"]["tags"][2] == "stig:V-1"
    assert len(rule["properties"]["references"]["nist"]) == 30
    assert rule["properties"]["references"]["stig"] == ["V-1"]


def test_numbers_that_json_has_not_are_text() -> None:
    one = finding("A-1", Severity.LOW, Outcome.FAILED, observed=[float("nan"), {"x": float("inf")}])

    def refuse(word: str) -> None:
        raise AssertionError(word)

    document = json.loads(write_json([one], RUN), parse_constant=refuse)
    assert document["findings"][0]["observed"] == ["nan", {"x": "inf"}]


def test_guest_text_is_no_markup() -> None:
    page = write_html(FINDINGS, RUN)
    assert page.count("<script") == 2, "the data and the page's own script, and nothing of a guest"
    assert "\\u003cscript\\u003e" in page
    assert "<b>evil" not in page and "&lt;b&gt;evil" in page


def test_a_page_without_findings_is_whole() -> None:
    assert write_html((), RUN).endswith("</html>")


def test_published_schema_is_the_models_own() -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        SCHEMA.write_text(json_schema())
    assert SCHEMA.read_text() == json_schema(), "UPDATE_GOLDEN=1 writes it anew"


def test_report_keeps_to_its_schema() -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.validate(json.loads(write_json(FINDINGS, RUN)), schema)
    jsonschema.validate(json.loads(write_json((), RUN)), schema)


def test_whose_word_a_verdict_rests_on_is_told_everywhere() -> None:
    outside = next(f for f in FINDINGS if f.control == "A-8")
    assert '"judged_on": "outside"' in write_json(FINDINGS, RUN)
    assert '"judgedOn": "outside"' in write_sarif(FINDINGS, RUN)
    assert outside.whose_word == "a look from outside, not the guest's word"
    assert "outside: a look from outside, not the guest's word" in write_html(FINDINGS, RUN)
    assert "judged on machine: the guest's own word" in summary(whole=True)
    assert "judged on machine" not in summary()
    assert "judged on outside: a look from outside" in "\n".join(failure_lines(outside))


def test_a_report_says_nothing_else_than_its_schema_does() -> None:
    odd = finding("A-1", Severity.LOW, Outcome.FAILED, judged_on="hearsay")
    assert odd.whose_word == "the guest's own word"
    with pytest.raises(msgspec.ValidationError, match="judged_on"):
        write_json((odd,), RUN)


def test_plan_is_whole_on_demand_and_at_most_a_screen_else() -> None:
    assert len(summary().splitlines()) <= 45
    assert "A-1" in summary(whole=True)
    assert summary(whole=True).count("remedy:") >= summary().count("remedy:")
