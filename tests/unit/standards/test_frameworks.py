"""Frameworks: which controls give evidence for which clause."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos.standards.coverage import clause_of, coverage
from pytest_nixos.standards.explain import reference_lines
from pytest_nixos.standards.frameworks import frameworks
from pytest_nixos.standards.load import load_catalogue
from pytest_nixos.standards.profile import load_profiles, select_controls

CATALOGUE = load_catalogue()
FRAMEWORKS = frameworks()


@pytest.mark.parametrize("standard", FRAMEWORKS)
def test_evidence_comes_from_controls_that_are_judged(standard: str) -> None:
    file = FRAMEWORKS[standard]
    named = {control for clause in file.clause for control in clause.controls}
    assert {c for c in named if CATALOGUE.control(c).judged_as} == set(), "name the judging one"
    assert {suite for clause in file.clause for suite in clause.suites} <= set(CATALOGUE.suites)


@pytest.mark.parametrize("standard", FRAMEWORKS)
def test_a_clause_is_mapped_or_unmapped_and_once(standard: str) -> None:
    file = FRAMEWORKS[standard]
    numbers = [clause.number for clause in file.clause]
    numbers += [number for entry in file.unmapped for number in entry.clauses]
    assert sorted(set(numbers)) == sorted(numbers)


@pytest.mark.parametrize("standard", FRAMEWORKS)
def test_its_profile_selects_what_gives_evidence(standard: str) -> None:
    chosen = select_controls([standard], load_profiles(CATALOGUE), CATALOGUE)
    named = {c for clause in FRAMEWORKS[standard].clause for c in clause.controls}
    assert named <= {control.id for control in chosen}


def test_a_control_refers_to_the_clauses_that_name_it_or_its_suite() -> None:
    references = CATALOGUE.control("SYSCTL-035").references
    assert references["pci-dss"] == ("1.4.3", "2.2.6")
    assert references["cis"] == ("3.3.1.12",), "and to what its catalogue says"
    assert CATALOGUE.control("AUTH-024").references["nis2"] == ("21(2)(j)",)


def test_no_evidence_is_told_as_fulfilment() -> None:
    lines = reference_lines(CATALOGUE.control("AUTH-024"))
    assert "gives evidence for NIS2, Directive (EU) 2022/2555: 21(2)(j)" in lines
    assert any(line.startswith("DISA Anduril NixOS STIG") for line in lines)


def test_parts_and_enhancements_count_for_their_base_control() -> None:
    assert clause_of("nist", "AU-3 (1)") == clause_of("nist", "AU-3 a") == "AU-3"
    assert clause_of("dora", "9(4)(b)") == "9(4)(b)"
    found = {clause.name: clause for clause in coverage("nist", CATALOGUE).clauses}
    assert "AUD-003" in [control.id for control in found["AU-3"].controls]


def test_clauses_are_in_the_order_of_their_numbers() -> None:
    names = [clause.name for clause in coverage("dora", CATALOGUE).clauses]
    assert names.index("9(4)(b)") < names.index("10(1)")
    assert names.index("9(3)(c)") < names.index("9(4)(a)")


def test_a_control_in_the_place_of_a_bundled_one_gives_no_evidence(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        """
suite = "ssh"
title = "SSH"
description = "Ours."

[[control]]
id = "SSH-001"
overrides = true
title = "Something else"
severity = "LOW"
threat = "None that the framework's clause is about."
remedy = "services.openssh.enable = false;"
manual = "ask"
references = { iso27001 = ["A.8.9"] }
"""
    )
    control = load_catalogue([tmp_path]).control("SSH-001")
    assert control.references == {"iso27001": ("A.8.9",)}
