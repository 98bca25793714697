"""``--nixos-record`` and ``--nixos-replay``: what was seen is judged again, without Nix and machine."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.recording.recording import FINDINGS
from tests.plugin.field import Field
from tests.unit.recording.kept import edit

TOKEN = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
CHECK = """
import pytest

@pytest.mark.nixos_control("BOOT-001")
def test_boot(nixos_machine, nixos_evidence):
    nixos_evidence.attach("said", "token ghp_16C7e42F292c6912E7710c838347Ae178B4a")
    assert not nixos_evidence.observe(["x.service"]), "one unit failed: --token ghp_16C7e42F292c6912E7710c838347Ae178B4a"

@pytest.mark.nixos_control("BOOT-002")
def test_clean(nixos_machine):
    pass

def test_mine(nixos_machine):
    pass
"""
OWN = """
suite = "own"
title = "Own"
description = "Controls of this test."

[[control]]
id = "OWN-001"
title = "One file"
severity = "HIGH"
threat = "a threat"
remedy = "do it"
observed = { kind = "file", path = "%s", field = "content" }
expect = { op = "not-matches", value = "Kx92jf8Qwe7zLm" }

[[control]]
id = "OWN-002"
title = "One sysctl"
severity = "HIGH"
threat = "a threat"
remedy = "do it"
observed = { kind = "sysctl", key = "kernel.ostype" }
expect = { op = "eq", value = "Linux", parameter = "own-type" }

[[control]]
id = "OWN-003"
title = "An option"
severity = "HIGH"
threat = "a threat"
remedy = "do it"
declared = { option = "services.own.enable" }
expect = { op = "eq", value = true }
"""
LATER = """
[[control]]
id = "OWN-004"
title = "Another sysctl"
severity = "HIGH"
threat = "a threat"
remedy = "do it"
observed = { kind = "sysctl", key = "kernel.osrelease" }
expect = { op = "not-empty" }
"""
LATER += """
[[control]]
id = "OWN-005"
title = "Another option"
severity = "HIGH"
threat = "a threat"
remedy = "do it"
declared = { option = "services.later.enable" }
expect = { op = "eq", value = true }
"""
MORE = """
@pytest.mark.nixos_control("BOOT-004")
def test_more(nixos_machine): pass
"""
PROFILES = {
    "one": """select = { controls = ["OWN-002"] }""",
    "strict": """select = { suites = ["own"] }\nparameters = { own-type = "BSD" }""",
}
CATALOGUE = ("--nixos-catalogue", "own", "--nixos-report", "json:report.json")
RECORD = (
    *("--nixos-flake", ".#web", *CATALOGUE, "--nixos-profile", "one", "--nixos-record", "kept"),
    *("--nixos-waivers", "waivers.toml"),
)
WAIVER = (
    '[[waiver]]\ncontrol = "%s"\nhost = "web"\nreason = "known"\nowner = "me"\n'
    "expires = 2999-01-01\n"
)
REPLAY = (*CATALOGUE, "--nixos-replay=kept")
DATA_TEST = "catalogue.test_catalogue"
DATA = ("--pyargs", f"pytest_nixos.checks.{DATA_TEST}", "test_it.py")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One recording for all tests: making it takes longest."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture
def own(field: Field, shelf: Path) -> Field:
    here = field.pytester.path
    (shelf / "seen").write_text("password = Kx92jf8Qwe7zLm\n")
    (here / "own" / "profiles").mkdir(parents=True)
    (here / "own" / "own.toml").write_text(OWN % (shelf / "seen"))
    for name, text in PROFILES.items():
        head = f'profile = "{name}"\ntitle = "{name}"\ndescription = "d"\n'
        (here / "own" / "profiles" / f"{name}.toml").write_text(head + text + "\n")
    (here / "test_it.py").write_text(CHECK)
    (here / "waivers.toml").write_text(WAIVER % "BOOT-001")
    return field


def without_nix(field: Field) -> None:
    for tool in (field.pytester.path / "tools").iterdir():
        tool.unlink()
    field.log.unlink()


def findings(field: Field) -> dict[str, dict[str, Any]]:
    return {f["control"]: f for f in field.report()["findings"]}


@pytest.fixture
def kept(own: Field, shelf: Path) -> Path:
    here = own.pytester.path
    if not (shelf / "kept").exists():
        result = own.run(*RECORD, *DATA)
        result.stdout.fnmatch_lines(["recording: */kept"])
        shutil.copytree(here / "kept", shelf / "kept")
        shutil.copy(here / "report.json", shelf)
    else:
        shutil.copytree(shelf / "kept", here / "kept")
        shutil.copy(shelf / "report.json", here)
        own.log.touch()
    return here / "kept"


def test_a_replay_says_what_the_run_said(own: Field, kept: Path) -> None:
    before = findings(own)
    without_nix(own)
    result = own.run(*REPLAY, "--nixos-profile", "one", "--nixos-waivers", "waivers.toml", *DATA)
    # The user's own test needs a machine and judges no control.
    result.assert_outcomes(passed=2, xfailed=1, skipped=1)
    after = findings(own)
    assert {c: f["outcome"] for c, f in after.items()} == {
        "OWN-002": "passed",
        "BOOT-001": "waived",
        "BOOT-002": "passed",
    }
    for control, finding in after.items():
        said = finding["attachments"].pop("replayed", "")
        assert bool(said) is control.startswith("BOOT")
        assert said == "" or "a replay has no machine to judge it on again" in said
        before[control]["attachments"].pop("said", None)
        finding["attachments"].pop("said", None)
        for of in (finding, before[control]):
            del of["duration_s"]
            of["reason"] = of["reason"].replace(TOKEN, "REDACTED")
        assert finding == before[control]
    assert own.machine_log == []


def test_data_controls_of_a_replay_set_no_fixture_up(own: Field, kept: Path) -> None:
    without_nix(own)
    result = own.run(*REPLAY, "--nixos-profile", "one", "-k", "OWN-002", "--setup-show", *DATA)
    result.assert_outcomes(passed=1, deselected=3)
    result.stdout.fnmatch_lines(
        ["*test_control?web-OWN-002? (fixtures used: nixos_control, nixos_judge)*"]
    )
    result.stdout.no_fnmatch_line("*SETUP *")


def test_bundled_items_of_a_replay_are_made_without_fixtures(own: Field, kept: Path) -> None:
    (own.pytester.path / "watcher.py").write_text(
        "def pytest_itemcollected(item):\n"
        "    print('\\nmade', type(item).__name__, item.location[2], *sorted(item.keywords))\n"
    )
    without_nix(own)
    data, boot = (f"pytest_nixos.checks.{name}" for name in (DATA_TEST, "boot.test_boot"))
    chosen = (f"{data}::test_control[web-OWN-002]", boot)
    watched = ("-p", "watcher", "-s", "-k", "HIGH", "--pyargs", *chosen)
    result = own.run(*REPLAY, "--nixos-profile", "one", *watched)
    made = [line.split()[1:] for line in result.outlines if line.startswith("made ")]
    result.assert_outcomes(passed=1, deselected=len(made) - 1)
    assert made[0][:2] == ["RecordedControl", "test_control[web-OWN-002]"]
    assert {words[0] for words in made[1:]} == {"ReplayedCheck"}
    assert all("nixos_control" in words for words in made[1:])


def test_a_replay_does_not_blame_how_busy_this_machine_is(own: Field, kept: Path) -> None:
    without_nix(own)
    own.run(*REPLAY, "--nixos-profile", "strict", *DATA[:2])
    failed = [f for f in findings(own).values() if f["outcome"] == "failed"]
    assert [f["pressure"]["waited"] for f in failed] == [None] * len(failed)
    assert failed


def test_another_profile_judges_what_was_seen_anew(own: Field, kept: Path) -> None:
    with (own.pytester.path / "own" / "own.toml").open("a") as catalogue:
        catalogue.write(LATER)
    with (own.pytester.path / "test_it.py").open("a") as checks:
        checks.write(MORE)
    without_nix(own)
    result = own.run(*REPLAY, "--nixos-profile", "strict", *DATA)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    found = findings(own)
    assert (found["OWN-002"]["outcome"], found["OWN-002"]["observed"]) == ("failed", "Linux")
    # The recorded profile does not have it: it was asked for all the same.
    assert found["OWN-003"]["outcome"] == "not-applicable"
    assert {c: f["reason"] for c, f in found.items() if f["outcome"] == "error"} == {
        # The machine's file violates it; the redacted one would pass.
        "OWN-001": "not judged: what it looks at held a secret, which the recording does not",
        "OWN-004": "not judged: nobody asked the machine for this control when it was recorded"
        " (kernel parameters below /proc/sys)",
        "OWN-005": "not judged: nobody read the option services.later.enable when the host was"
        " recorded",
        "BOOT-004": "not judged: a check of the machine, which the recorded run did not make",
    }
    assert {f["judged_on"] for f in found.values() if f["outcome"] == "error"} == {"nothing"}


def test_no_secret_is_kept(own: Field, kept: Path) -> None:
    texts = [path.read_text() for path in kept.rglob("*") if path.is_file()]
    assert len(texts) == 4
    assert any("REDACTED" in text for text in texts)
    assert not any("Kx92jf8Qwe7zLm" in text or "ghp_16C7" in text for text in texts)
    assert {path.stat().st_mode & 0o77 for path in kept.rglob("*")} == {0}


def test_the_waivers_of_the_replay_speak(own: Field, kept: Path) -> None:
    assert findings(own)["BOOT-001"]["outcome"] == "waived"
    (own.pytester.path / "waivers.toml").write_text(WAIVER % "BOOT-002")
    without_nix(own)
    own.run(*REPLAY, "--nixos-profile", "one", "--nixos-waivers", "waivers.toml", *DATA)
    found = findings(own)
    assert (found["BOOT-001"]["outcome"], found["BOOT-001"]["reason"]) == (
        "failed",
        "one unit failed: --token REDACTED",
    )
    assert found["BOOT-002"]["reason"].startswith("the control holds, so the waiver is no longer")


MINE = """
import pytest

def test_cluster(nixos_cluster): nixos_cluster("web", "db.one")
def test_flake(nixos_flake): nixos_flake.evaluate("web")
def test_names(nixos_flake): nixos_flake.host_names()
def test_lock(nixos_flake): assert nixos_flake.lock_answer()
def test_closure(nixos_closure_scan): assert nixos_closure_scan

@pytest.mark.nixos_control("BOOT-002")
def test_config(nixos_host_config): pass
"""


def test_no_test_brings_a_replay_to_run_nix(own: Field, kept: Path) -> None:
    own.log.unlink()
    (own.pytester.path / "test_mine.py").write_text(MINE)
    tool = own.pytester.path / "tools" / "nix"
    tool.write_text(f"#!/bin/sh\necho nix >> {own.log}\nexit 1\n")
    result = own.run(*REPLAY, "--nixos-suite", "none", "test_mine.py", "-k", "not config")
    result.assert_outcomes(skipped=5)
    assert own.machine_log == []


def test_a_check_does_not_speak_for_another_control(own: Field, kept: Path) -> None:
    checks = own.pytester.path / "test_it.py"
    checks.write_text(CHECK.replace("BOOT-002", "BOOT-004"))
    without_nix(own)
    own.run(*REPLAY, "--nixos-profile", "one", "test_it.py")
    found = findings(own)["BOOT-004"]
    assert (found["outcome"], found["reason"]) == (
        "error",
        "not judged: a check of the machine, which judged BOOT-002 when it was recorded",
    )


def test_a_check_of_the_flake_is_not_called_one_of_the_machine(own: Field, kept: Path) -> None:
    (own.pytester.path / "test_it.py").write_text(
        CHECK.replace("BOOT-002", "FLK-002").replace("nixos_machine)", "nixos_flake)")
    )
    without_nix(own)
    own.run(*REPLAY, "--nixos-profile", "one", "test_it.py")
    assert findings(own)["FLK-002"]["reason"] == (
        "not judged: a check of the flake, which judged BOOT-002 when it was recorded"
    )


def test_a_waived_finding_without_what_was_waived_is_not_judged(own: Field, kept: Path) -> None:
    edit(kept, FINDINGS, lambda document: document["before_waiver"].clear())
    without_nix(own)
    result = own.run(*REPLAY, "--nixos-profile", "one", "test_it.py")
    result.assert_outcomes(passed=1, errors=1, skipped=1)
    assert findings(own)["BOOT-001"]["outcome"] == "error"


def test_a_host_that_did_not_evaluate_is_an_error_beside_the_others(
    own: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NIX_HOSTS", "web broken")
    monkeypatch.setenv("FAKE_NIX_BROKEN", f"cannot fetch with --token {TOKEN}")
    flakes = ("--nixos-flake", ".", *CATALOGUE, "--nixos-profile", "one")
    own.run(*flakes, "--nixos-record", "kept", "test_it.py")
    before = {(f["host"], f["control"]): f["outcome"] for f in own.report()["findings"]}
    without_nix(own)
    result = own.run(*REPLAY, "--nixos-profile", "one", "test_it.py")
    assert "INTERNALERROR" not in result.stdout.str()
    after = {(f["host"], f["control"]): f["outcome"] for f in own.report()["findings"]}
    assert after == before
    assert TOKEN not in (own.pytester.path / "kept" / "recording.json").read_text()
    assert before["broken", "BOOT-002"] == "error"
    assert before["web", "BOOT-002"] == "passed"


def test_under_xdist(own: Field, kept: Path) -> None:
    without_nix(own)
    own.run(*REPLAY, "--nixos-profile", "one", "-n1", *DATA)
    assert {c: f["outcome"] for c, f in findings(own).items()} == {
        "OWN-002": "passed",
        "BOOT-001": "failed",
        "BOOT-002": "passed",
    }


KEPT_BY_WORKER = """
from pathlib import Path

def pytest_runtest_makereport(call):
    if call.excinfo is not None:
        held = [type(each).__name__ for entry in call.excinfo.traceback for each in entry.frame.f_locals.values()]
        with Path("held.txt").open("a") as file:
            file.write(" ".join(held) + "\\n")

def pytest_sessionfinish(session):
    if hasattr(session.config, "workerinput"):
        stats = session.config.pluginmanager.get_plugin("terminalreporter").stats
        Path("stats.txt").write_text(str(sum(map(len, stats.values()))))
"""


def test_a_worker_keeps_neither_reports_nor_what_was_observed(own: Field, kept: Path) -> None:
    here = own.pytester.path
    (here / "watcher.py").write_text(KEPT_BY_WORKER)
    without_nix(own)
    own.run(*REPLAY, "--nixos-profile", "strict", "-p", "watcher", "-n1", *DATA[:2])
    assert findings(own)["OWN-002"]["outcome"] == "failed"
    held = set((here / "held.txt").read_text().split())
    assert held >= {"Verdict", "NotRecorded"}
    assert held.isdisjoint({"Recorded", "_OfControl"})
    assert (here / "stats.txt").read_text() == "0"


def test_a_damaged_recording_ends_the_run(own: Field, kept: Path) -> None:
    (file,) = kept.rglob("declared.json")
    file.write_text(file.read_text().replace("web", "bew"))
    without_nix(own)
    result = own.run(*REPLAY, *DATA)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *declared.json: is not what was recorded: *"])


@pytest.mark.parametrize("wrong", [("--nixos-suite", "nosuch"), ("--nixos-flake", ".#broken")])
def test_a_refused_run_leaves_the_directory_to_the_next(
    own: Field, monkeypatch: pytest.MonkeyPatch, wrong: tuple[str, ...]
) -> None:
    monkeypatch.setenv("FAKE_NIX_HOSTS", "web broken")
    of_run = [word for word in RECORD if word not in ("--nixos-flake", ".#web")]
    result = own.run(*of_run, *wrong, *(() if ".#broken" in wrong else RECORD[:2]), "test_it.py")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "recording: " not in result.stdout.str()
    assert list((own.pytester.path / "kept").iterdir()) == []


def test_what_holds_no_observation_is_told(own: Field) -> None:
    result = own.run(*RECORD, "--nixos-suite", "none", "test_it.py")
    result.stdout.fnmatch_lines(
        ["recording: */kept", "  no data control looked at web: a replay says again *"]
    )


def test_nothing_is_recorded_over(own: Field, kept: Path) -> None:
    own.log.unlink()
    result = own.run(*RECORD, *DATA)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --nixos-record */kept: is not empty"])
    assert own.machine_log == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--nixos-replay=a", "--nixos-record=b"), "record does not go with --nixos-replay"),
        (("--nixos-replay=a", "--nixos-prepared=b"), "replay does not go with --nixos-prepared"),
        (("--nixos-replay=a", "--nixos-flake=b"), "replay does not go with --nixos-flake"),
        (("--nixos-replay=a", "--nixos-file=b"), "replay does not go with --nixos-file"),
        (("--nixos-replay=a", "-A", "b"), "replay does not go with --nixos-attr"),
        (("--nixos-replay=a", "--nixos-replay=b"), "--nixos-replay: is given twice"),
        (("--nixos-record=a", "--nixos-record=b"), "--nixos-record: is given twice"),
        (("--nixos-record", ""), "--nixos-record: got nothing"),
        (("--nixos-replay=",), "--nixos-replay: got nothing"),
        (("--nixos-sign", ""), "--nixos-sign: got nothing"),
        (("--nixos-record=a", "--nixos-upgrade-from=."), "not go with --nixos-upgrade-from"),
        (("--nixos-record=a", "--nixos-real-secrets-key=k"), "with --nixos-real-secrets-key"),
    ],
)
def test_what_does_not_go_together(
    pytester: pytest.Pytester, arguments: tuple[str, ...], told: str
) -> None:
    with pytest.raises(pytest.UsageError, match=told):
        pytester.parseconfigure(*arguments)
