"""The bundled catalogue as a whole: complete, covered, documented, and honest about what is not
written.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from docs.generate.__main__ import main
from docs.generate.controls import pages
from pytest_nixos.findings import JudgedOn
from pytest_nixos.standards.control.model import STANDARDS
from pytest_nixos.standards.coverage import COVERED, clause_of, coverage
from pytest_nixos.standards.documents import read_document
from pytest_nixos.standards.explain import explain, list_controls, whose_word
from pytest_nixos.standards.format import CatalogueFile, ProfileFile, schema
from pytest_nixos.standards.judging.applicability import outside_releases
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.standards.load import load_catalogue
from pytest_nixos.standards.parse import check_patterns
from pytest_nixos.standards.profile import load_profiles, select_controls

CATALOGUE = load_catalogue()
PROFILES = load_profiles(CATALOGUE)
REPOSITORY = Path(__file__).parents[3]
CHECKS = REPOSITORY / "checks"


def written_checks() -> set[str]:
    found: set[str] = set()
    for path in CHECKS.rglob("*.py"):
        found.update(re.findall(r"nixos_control\(\s*\"([A-Z0-9-]+)\"", path.read_text("utf-8")))
    return found


def test_every_bundled_pattern_is_a_regular_expression() -> None:
    for control in CATALOGUE:
        check_patterns(control)


@pytest.mark.parametrize(
    ("folder", "form"), [("catalogue", CatalogueFile), ("profiles", ProfileFile)]
)
def test_bundled_files_obey_the_schema(folder: str, form: type[object]) -> None:
    paths = sorted((REPOSITORY / "pytest_nixos/standards" / folder).glob("*.toml"))
    assert paths
    for path in paths:
        read_document(path, form)


def test_the_published_schema_is_made_of_the_model() -> None:
    published = json.loads((REPOSITORY / "pytest_nixos/standards/schema.json").read_text("utf-8"))
    assert published == schema(), "run python -m pytest_nixos.standards.format"
    assert set(published["$defs"]) >= {"catalogue", "profile", "waivers"}


@pytest.mark.parametrize("release", ["24.05", "25.05", "25.11", "26.05", "26.11"])
def test_the_file_of_logins_that_a_release_writes_is_the_one_watched(release: str) -> None:
    """pam_lastlog2 took over with 25.11: a rule for the other file watches what nobody writes."""
    (applying,) = (
        control
        for control in CATALOGUE
        if control.title == "Records of logins are watched"
        and outside_releases(control.since, control.until, release) is None
    )
    new = release >= "25.11"
    assert applying.id == ("AUD-027" if new else "AUD-013")
    assert ("/var/lib/lastlog/lastlog2.db" in str(applying.remedies)) is new


def test_every_control_has_one_judge() -> None:
    planned = {c.id for c in CATALOGUE if c.check}
    assert written_checks() == planned


def test_whose_word_each_control_rests_on() -> None:
    found: dict[JudgedOn, set[str]] = {}
    for control in CATALOGUE:
        found.setdefault(whose_word(control), set()).add(control.id)
    assert found[JudgedOn.OUTSIDE] == {"FW-004", "NET-018", "OLL-006", "TLS-005", "NATS-009"}
    assert found[JudgedOn.OUTSIDE_AND_MACHINE] == {"FW-005", "FW-009"}
    # What is evaluated, built or entered here needs no guest; what a guest is asked does.
    assert {"FLK-007", "DEV-001", "LXC-001", "SSH-002"} & found[JudgedOn.CONFIG] == {
        "FLK-007",
        "DEV-001",
        "LXC-001",
    }
    assert {"BOOT-001", "SBX-D04", "UNIT-001"} <= found[JudgedOn.MACHINE]
    assert "A verdict rests on a look from outside" in explain(CATALOGUE.control("FW-004"))


def test_a_check_that_stands_outside_says_so() -> None:
    """Whatever uses a stranger of ours is not the guest's word."""
    outside = {JudgedOn.OUTSIDE, JudgedOn.OUTSIDE_AND_MACHINE}
    said = {c.id for c in CATALOGUE if whose_word(c) in outside}
    standing = re.compile(
        r"probe_tcp|\bsurvey\(|outside: (?:tuple\[View|Future\[)|[cC]luster\.connect\(|_Bus\("
    )
    found = set()
    for path in CHECKS.rglob("test_*.py"):
        for part in re.split(
            r"^@pytest\.mark\.nixos_control\(", path.read_text("utf-8"), flags=re.MULTILINE
        )[1:]:
            function = re.split(r"^(?:class|def _)", part, flags=re.MULTILINE)[0]
            if standing.search(function):
                found.add(part.split('"')[1])
    assert found == said


@pytest.mark.parametrize(
    ("standard", "clauses"),
    [
        *(("stig", 103), ("anssi", 80), ("requirement", 160), ("hipaa", 16)),
        *(("nist", 298), ("cis-controls", 153), ("iso27001", 93), ("pci-dss", 280)),
        *(("nis2", 28), ("dora", 207)),
    ],
)
def test_every_clause_has_a_control_or_a_reason(standard: str, clauses: int) -> None:
    found = coverage(standard, CATALOGUE)
    assert len(found.clauses) == clauses
    assert [clause.name for clause in found.clauses if not clause.settled] == []


@pytest.mark.parametrize("standard", COVERED)
def test_no_control_refers_to_a_clause_that_does_not_exist(standard: str) -> None:
    known = {clause.name for clause in coverage(standard, CATALOGUE).clauses}
    used = {clause_of(standard, one) for c in CATALOGUE for one in c.references.get(standard, ())}
    assert used - known == set()


def test_references_name_known_standards() -> None:
    assert {key for c in CATALOGUE for key in c.references} - set(STANDARDS) == set()


def test_every_stig_rule_is_in_the_stig_profile() -> None:
    chosen = select_controls(["stig"], PROFILES, CATALOGUE)
    rules = {rule for c in chosen for rule in c.references.get("stig", ())}
    selected = {c.id for c in chosen}
    rules |= {r for c in CATALOGUE if c.judged_as in selected for r in c.references.get("stig", ())}
    manual = {r for c in CATALOGUE if c.manual for r in c.references.get("stig", ())}
    assert {clause.name for clause in coverage("stig", CATALOGUE).clauses} - rules - manual == set()


def test_kinds_that_are_read_without_a_machine() -> None:
    assert {name for name, kind in KINDS.items() if kind.host_side} == {
        "declaration", "flake-lock", "source-scan", "store-scan",
    }  # fmt: skip


def test_bundled_profiles_select_something() -> None:
    for name in PROFILES:
        assert select_controls([name], PROFILES, CATALOGUE)


def test_threats_and_remedies_are_sentences_and_code() -> None:
    for control in CATALOGUE:
        assert control.threat[0].isupper() or control.threat[0] in "/$", control.id
        assert control.threat.endswith((".", "?", "!")), control.id
        code = [
            line for line in control.remedy.splitlines() if line.strip() and line.strip()[0] != "#"
        ]
        # What is renamed keeps a value that only the flake's own line has.
        assert code or control.id == "FLK-012", f"{control.id}: its remedy is nothing but comments"


def test_every_page_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--check"])
    assert (status, capsys.readouterr().out) == (0, "")


def test_every_control_and_suite_has_a_page() -> None:
    found = pages(CATALOGUE, PROFILES, page_each=True)
    for control in CATALOGUE:
        page = found[f"{control.suite}/{control.id}.md"]
        assert control.threat in page
        assert control.remedy in page
    assert {f"{name}.md" for name in CATALOGUE.suites} <= set(found)


def test_pages_link_to_pages_that_exist() -> None:
    found = pages(CATALOGUE, PROFILES, page_each=True)
    for path, text in found.items():
        for target in re.findall(r"\]\(([^)#:]+\.md)\)", text):
            resolved = (Path("/") / path).parent / target
            assert str(resolved.resolve()).lstrip("/") in found, f"{path}: {target}"


def test_explaining_a_control_says_everything() -> None:
    text = explain(CATALOGUE.control("SSH-005"), CATALOGUE)
    for part in (
        "SSH-005",
        "HIGH",
        "Threat:",
        "Remedy:",
        "V-268157",
        "ssh-macs",
        "services.openssh.settings.Macs",
    ):
        assert part in text
    assert "Judged as FW-001" in explain(CATALOGUE.control("NET-001"), CATALOGUE)
    assert "By hand, because" in explain(CATALOGUE.control("AUTH-023"))


def test_listing_controls_is_one_line_each() -> None:
    text = list_controls(CATALOGUE.suites["ssh"].controls)
    assert len(text.splitlines()) == 27
    assert text.splitlines()[0].split()[:3] == ["SSH-001", "HIGH", "both"]
