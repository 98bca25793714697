"""Catalogue, profile and waiver files: what is accepted, and what bad ones are told."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from pytest_nixos.errors import CatalogueError
from pytest_nixos.findings import Outcome, Severity
from pytest_nixos.standards.load import Catalogue, load_catalogue, option_paths
from pytest_nixos.standards.profile import load_profiles, select_controls
from pytest_nixos.standards.waivers import (
    apply_waiver,
    find_waiver,
    load_waivers,
)

CONTROL = """
[[control]]
id = "OUR-001"
title = "A rule"
severity = "LOW"
threat = "Something happens."
remedy = "networking.hostName = \\"x\\";"
observed = { kind = "sysctl", key = "kernel.sysrq" }
expect = { op = "eq", value = 0, parameter = "our-sysrq" }
"""
SUITE = f'suite = "ours"\ntitle = "Ours"\ndescription = "Our rules."\n{CONTROL}'
PROFILE = 'profile = "ours"\ntitle = "Ours"\ndescription = "Ours."\n[select]\nsuites = ["ours"]\n'
WAIVER = """
[[waiver]]
control = "SSH-002"
host = "legacy-*"
reason = "the vendor's robot"
owner = "ops"
expires = 2027-03-31
"""


@pytest.fixture(scope="module")
def bundled() -> Catalogue:
    return load_catalogue()


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    (tmp_path / "ours.toml").write_text(SUITE)
    return tmp_path


def refused(directory: Path, text: str) -> str:
    (directory / "ours.toml").write_text(text)
    with pytest.raises(CatalogueError) as caught:
        load_catalogue([directory])
    assert caught.value.remedy
    assert str(directory / "ours.toml") in caught.value.message
    return caught.value.message


def test_a_users_file_adds_a_suite(ours: Path) -> None:
    catalogue = load_catalogue([ours])
    assert catalogue.control("OUR-001").severity is Severity.LOW
    assert catalogue.suites["ours"].controls == (catalogue.control("OUR-001"),)


def test_a_users_file_extends_a_bundled_suite(tmp_path: Path, bundled: Catalogue) -> None:
    (tmp_path / "ours.toml").write_text(SUITE.replace('"ours"', '"ssh"', 1))
    suite = load_catalogue([tmp_path]).suites["ssh"]
    assert suite.title == bundled.suites["ssh"].title
    assert [c.id for c in suite.controls][-1] == "OUR-001"


def test_an_override_replaces_a_control_in_its_suite(tmp_path: Path, bundled: Catalogue) -> None:
    text = SUITE.replace("OUR-001", "SSH-001").replace("severity", "overrides = true\nseverity")
    (tmp_path / "ours.toml").write_text(text)
    catalogue = load_catalogue([tmp_path])
    assert catalogue.control("SSH-001").suite == "ours"
    assert "SSH-001" not in [c.id for c in catalogue.suites["ssh"].controls]
    assert len(catalogue) == len(bundled)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"LOW"', '"BAD"', 'OUR-001: severity: is "BAD", expected one of CRITICAL'),
        ('threat = "Something happens."\n', "", "OUR-001: lacks threat"),
        ('"Something happens."', '" "', "OUR-001: threat"),
        ('op = "eq"', 'op = "equals"', 'OUR-001: expect.op: is "equals"'),
        ("value = 0, ", "", "OUR-001: expect: lacks value"),
        ('kind = "sysctl"', 'kind = "sysctrl"', "'sysctrl' is not a kind; did you mean sysctl?"),
        ('key = "kernel.sysrq"', 'name = "x"', "OUR-001: observed: name: kind sysctl has no such"),
        ('key = "kernel.sysrq"', "key = 3", "OUR-001: observed: key: is 3, expected text"),
        (', key = "kernel.sysrq"', "", "OUR-001: observed: needs exactly one of key, keys"),
        ("expect = ", 'manual = "why"\nexpect = ', "judged in exactly one way"),
        ('"OUR-001"', '"our 1"', "expected text that matches"),
        ('title = "A rule"', 'titel = "A rule"', "has no field titel; did you mean title?"),
        (
            "expect = ",
            'declared = { select = ["a"] }\nexpect = ',
            "needs exactly one of option, options",
        ),
        ('remedy = "', 'remedies = [{ text = "x" }]\nremedy = "', "one of remedy, remedies"),
        ("[[control]]", "[[control]", "not valid TOML"),
        ('op = "eq", value = 0', "op = \"matches\", value = '('", "not a regular expression"),
        ('suite = "ours"', 'suite = "Our Suite"', 'suite: is "Our Suite"'),
    ],
)
def test_a_malformed_catalogue_is_told_where(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in SUITE
    assert told in refused(tmp_path, SUITE.replace(old, new, 1))


def test_a_duplicate_id_is_refused(tmp_path: Path) -> None:
    assert "OUR-001: id: is there twice" in refused(tmp_path, SUITE + CONTROL)


def test_a_bundled_id_is_refused_unless_overridden(tmp_path: Path) -> None:
    told = refused(tmp_path, SUITE.replace("OUR-001", "SSH-001"))
    assert "SSH-001: id: is taken by" in told


def test_an_override_of_nothing_is_refused(tmp_path: Path) -> None:
    text = SUITE.replace("OUR-001", "SSH-901").replace("severity", "overrides = true\nseverity")
    assert "no such control to replace; did you mean SSH-0" in refused(tmp_path, text)


def test_an_alias_of_nothing_is_refused(tmp_path: Path) -> None:
    lines = [line for line in SUITE.splitlines() if not line.startswith(("observed", "expect"))]
    text = "\n".join([*lines, 'judged-as = "SSH-999"'])
    assert "OUR-001: judged-as: 'SSH-999' is not known" in refused(tmp_path, text)


def test_an_option_path_is_data_not_code(tmp_path: Path) -> None:
    text = SUITE + 'declared = { option = "a.${builtins.exec}" }\n'
    assert "declared.option" in refused(tmp_path, text)


def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="no such directory"):
        load_catalogue([tmp_path / "none"])


def test_an_unknown_id_suggests_the_nearest(bundled: Catalogue) -> None:
    with pytest.raises(CatalogueError, match=r"did you mean SSH-\d+\?"):
        bundled.control("SSH-01")


def test_option_paths_are_those_of_requirements_declarations_and_kinds(bundled: Catalogue) -> None:
    paths = option_paths([bundled.control("SSH-001"), bundled.control("LLM-017")])
    assert paths == (
        "services.llama-cpp.enable",
        "services.llama-cpp.host",
        "services.llama-cpp.port",
        "services.openssh.enable",
        "services.openssh.settings",
    )


def profile_refused(directory: Path, text: str, names: tuple[str, ...] = ()) -> str:
    (directory / "profiles").mkdir(exist_ok=True)
    (directory / "profiles" / "ours.toml").write_text(text)
    catalogue = load_catalogue([directory])
    with pytest.raises(CatalogueError) as caught:
        select_controls(names, load_profiles(catalogue, [directory]), catalogue)
    assert caught.value.remedy
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            PROFILE.replace('["ours"]', '["our"]'),
            "select.suites: 'our' is not known; did you mean ours?",
        ),
        (
            PROFILE + 'controls = ["OUR-002"]',
            "select.controls: 'OUR-002' is not known; did you mean OUR-001?",
        ),
        (PROFILE + 'standards = ["stigs"]', "did you mean stig?"),
        (
            PROFILE + "[parameters]\nour-sysrk = 1",
            "parameters: 'our-sysrk' is not known; did you mean our-sysrq?",
        ),
        (PROFILE + '[severities]\nOUR-009 = "LOW"', "severities: 'OUR-009' is not known"),
        (PROFILE + '[severities]\nOUR-001 = "WORST"', "severities.OUR-001"),
        (PROFILE.replace('"ours"', '"baseline"', 1), "'baseline' is taken by"),
        (PROFILE.replace("[select]", 'extends = ["ours"]\n[select]'), "ours > ours is a circle"),
        (PROFILE.replace("[select]", 'extends = ["ourz"]\n[select]'), "did you mean ours?"),
    ],
)
def test_a_malformed_profile_is_told_where(ours: Path, text: str, told: str) -> None:
    assert told in profile_refused(ours, text)


def test_a_profile_that_selects_nothing_is_refused(ours: Path) -> None:
    text = PROFILE + '[exclude]\nsuites = ["ours"]'
    assert "profile 'ours' selects no control" in profile_refused(ours, text, ("ours",))


def test_an_unknown_profile_suggests_the_nearest(ours: Path) -> None:
    assert "did you mean hardened?" in profile_refused(ours, PROFILE, ("hardend",))


def test_profiles_combine_and_the_last_one_wins(ours: Path) -> None:
    (ours / "profiles").mkdir()
    text = (
        PROFILE
        + '[parameters]\nkptr-restrict-min = 3\nour-sysrq = 16\n[severities]\nOUR-001 = "HIGH"'
    )
    (ours / "profiles" / "ours.toml").write_text(text)
    catalogue = load_catalogue([ours])
    profiles = load_profiles(catalogue, [ours])
    chosen = {c.id: c for c in select_controls(["stig", "ours"], profiles, catalogue)}
    assert chosen["OUR-001"].severity is Severity.HIGH
    assert [e.value for e in chosen["OUR-001"].expectations()] == [16]
    assert [e.value for e in chosen["SYSCTL-001"].expectations()] == [3]
    stig_last = {c.id: c for c in select_controls(["ours", "stig"], profiles, catalogue)}
    assert [e.value for e in stig_last["SYSCTL-001"].expectations()] == [1]


def test_an_alias_is_selected_as_what_it_means(bundled: Catalogue) -> None:
    chosen = [c.id for c in select_controls(["hardened"], load_profiles(bundled), bundled)]
    assert "NET-001" not in chosen
    assert chosen.count("FW-001") == 1


def waivers_refused(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(CatalogueError) as caught:
        load_waivers(path, {"SSH-002", "SSH-003"})
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            WAIVER.replace("SSH-002", "SSH-020"),
            "SSH-020: control: is not known; did you mean SSH-00",
        ),
        (WAIVER.replace('owner = "ops"\n', ""), "SSH-002: lacks owner"),
        (WAIVER.replace("2027-03-31", '"2027-13-31"'), "'2027-13-31' is no date"),
        (WAIVER.replace("2027-03-31", '"soon"'), 'SSH-002: expires: is "soon"'),
        (WAIVER + WAIVER, "is waived twice"),
        ("waiver = 3", "waiver: is 3"),
    ],
)
def test_malformed_waivers_are_told_where(tmp_path: Path, text: str, told: str) -> None:
    assert told in waivers_refused(tmp_path / "waivers.toml", text)


def test_what_becomes_of_an_outcome_under_a_waiver(tmp_path: Path) -> None:
    path = tmp_path / "waivers.toml"
    path.write_text(WAIVER)
    (waiver,) = load_waivers(path, {"SSH-002"})
    last, after = dt.date(2027, 3, 31), dt.date(2027, 4, 1)
    assert find_waiver([waiver], "SSH-002", "legacy-1") is waiver
    assert find_waiver([waiver], "SSH-002", "web") is None
    outcome, reason = apply_waiver(waiver, Outcome.FAILED, "is yes", today=last)
    assert outcome is Outcome.WAIVED
    assert "ops" in reason and "2027-03-31" in reason and "is yes" in reason
    outcome, reason = apply_waiver(waiver, Outcome.FAILED, "is yes", today=after)
    assert outcome is Outcome.FAILED and "expired on 2027-03-31" in reason
    outcome, reason = apply_waiver(waiver, Outcome.PASSED, "", today=last)
    assert outcome is Outcome.FAILED and "no longer needed" in reason
    assert apply_waiver(waiver, Outcome.ERROR, "broke", today=last) == (Outcome.ERROR, "broke")
