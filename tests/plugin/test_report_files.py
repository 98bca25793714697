"""Report files: tried before anything is built, written each on its own, for their owner alone;
and the page on how to add a format.
"""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.plugin.field import Field

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-report-format.md"
WEB = ("--nixos-flake", ".#web", "--nixos-suite", "none")
CHECK = """
import pytest

@pytest.mark.nixos_control("BOOT-001")
def test_bad(nixos_machine, nixos_evidence):
    nixos_evidence.blame("unit", "x.service")
    assert 0, "failed: x|y"

@pytest.mark.nixos_rests_on("unit:x.service")
@pytest.mark.nixos_control("BOOT-004")
def test_echo(nixos_machine): assert 0, "no answer"
"""


@pytest.fixture
def checks(field: Field) -> Field:
    field.pytester.makepyfile(CHECK)
    return field


def offer(field: Field, code: str) -> None:
    conftest = field.pytester.path / "conftest.py"
    conftest.write_text(f"{conftest.read_text()}\n\n{code}")


def test_the_page_is_followed(checks: Field) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    offer(checks, code)
    checks.run(*WEB, "--nixos-report", "table:findings.md")
    assert (checks.pytester.path / "findings.md").read_text() == (
        "| host | control | why | explains |\n|---|---|---|---|\n"
        "| web | BOOT-001 | failed: x\\|y | BOOT-004 |\n"
    )


@pytest.mark.parametrize("place", ["file/report.json", "folder"])
def test_a_path_that_cannot_be_written_is_found_before_anything_is_built(
    checks: Field, place: str
) -> None:
    (checks.pytester.path / "file").write_text("")
    (checks.pytester.path / "folder").mkdir()
    result = checks.run(*WEB, "--nixos-report", f"json:{place}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--nixos-report json:*{place}: cannot be written*", "*remedy:*"])
    assert "Traceback" not in result.stderr.str() and checks.machine_log == []


def test_a_report_that_fails_takes_no_other_with_it(checks: Field) -> None:
    offer(
        checks,
        "def broken(findings, run): raise KeyError('\\x1b[31mx')\n"
        "def pytest_nixos_report_writers(config): return {'broken': broken}\n",
    )
    reports = ("--nixos-report", "broken:broken.txt", "--nixos-report", "json:report.json")
    result = checks.run(*WEB, *reports, "--nixos-fail-on", "critical")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["report broken:*broken.txt was not written: KeyError: *"])
    assert "\x1b[31m" not in result.stdout.str() and "INTERNALERROR" not in result.stdout.str()
    assert checks.report()["counts"] == {"failed": 2}
    assert not (checks.pytester.path / "broken.txt").exists()


def test_reports_are_for_their_owner_and_replace_what_was_there(checks: Field) -> None:
    old = checks.pytester.path / "report.json"
    old.write_text("old")
    old.chmod(0o644)
    checks.run(*WEB, "--nixos-report", "json:report.json")
    assert stat.S_IMODE(old.stat().st_mode) == 0o600
    assert checks.report()["version"] == 1
    assert not list(checks.pytester.path.glob(".report*"))


def test_junit_and_sarif_tell_causes(checks: Field) -> None:
    checks.run(*WEB, "--junit-xml", "junit.xml", "--nixos-report", "sarif:findings.sarif")
    found = {}
    for case in ET.parse(checks.pytester.path / "junit.xml").findall(".//testcase"):
        said = {p.get("name"): p.get("value") for p in case.findall(".//property")}
        found[said["nixos_control"]] = said
    assert found["BOOT-001"]["nixos_blames"] == "unit:x.service"
    assert found["BOOT-001"]["nixos_explains"] == "BOOT-004"
    assert found["BOOT-004"]["nixos_caused_by"] == "BOOT-001"
    sarif = json.loads((checks.pytester.path / "findings.sarif").read_text())
    first, second = sarif["runs"][0]["results"]
    assert first["properties"] == {
        "judgedOn": "machine",
        "causedBy": [],
        "explains": ["BOOT-004"],
    }
    assert second["properties"] == {
        "judgedOn": "machine",
        "causedBy": ["BOOT-001"],
        "explains": [],
    }


def test_a_report_may_go_to_what_is_no_file(checks: Field) -> None:
    result = checks.run(*WEB, "--nixos-report", "json:/dev/null")
    result.stdout.fnmatch_lines(["report: /dev/null"])


ROOT_LOGIN = "services.openssh.settings.PermitRootLogin"


def test_every_report_points_to_the_line_that_decides(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = field.pytester.path
    (root / "hosts").mkdir()
    (root / "hosts" / "web.nix").write_text(
        f"{{ lib, ... }}: {{\n  {ROOT_LOGIN} = lib.mkForce 1;\n}}\n"
    )
    definition: dict[str, object] = {"priority": 50, "position": None, "members": []}
    answer = {
        "rest": [],
        "priority": 50,
        "declared": [],
        "declaredAt": [],
        "definitions": [{**definition, "file": f"{root}/hosts/web.nix"}],
    }
    monkeypatch.setenv("FAKE_NIX_WHERE", json.dumps({ROOT_LOGIN: answer}))
    field.pytester.makepyfile(
        "import pytest\n"
        '@pytest.mark.nixos_control("SSH-001")\n'
        "def test_root(nixos_machine): assert 0, 'is yes'\n"
    )
    reports = ("json:report.json", "sarif:findings.sarif", "html:report.html")
    asked = [word for report in reports for word in ("--nixos-report", report)]
    result = field.run(*WEB, *asked, "--junit-xml", "junit.xml")
    spot = "hosts/web.nix:2"
    result.stdout.fnmatch_lines([f"*where: *{spot} sets {ROOT_LOGIN}, by mkForce"])
    (finding,) = field.report()["findings"]
    assert [(p["file"], p["line"], p["column"]) for p in finding["places"]] == [
        ("hosts/web.nix", 2, 3)
    ]
    sarif = json.loads((root / "findings.sarif").read_text())
    (location,) = sarif["runs"][0]["results"][0]["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "hosts/web.nix"},
        "region": {"startLine": 2, "startColumn": 3},
    }
    (case,) = ET.parse(root / "junit.xml").findall(".//testcase")
    assert (case.get("file"), case.get("line")) == ("hosts/web.nix", "2")
    assert spot in (root / "report.html").read_text()
    field.run(*WEB, *asked, "--nixos-where", "off")
    assert field.report()["findings"][0]["places"] == []


def test_one_file_for_each_host(checks: Field) -> None:
    checks.run(
        *("--nixos-flake", ".", "--nixos-suite", "none"),
        *("--nixos-report", "json:out/{host}.json", "--nixos-report", "xccdf:{host}.xml"),
    )
    for host in ("web", "db.one"):
        report = json.loads((checks.pytester.path / "out" / f"{host}.json").read_text())
        assert list(report["run"]["hosts"]) == [host]
        assert {finding["host"] for finding in report["findings"]} == {host}
        assert len(report["findings"]) == 2
        targets = ET.parse(checks.pytester.path / f"{host}.xml").iter(
            "{http://checklists.nist.gov/xccdf/1.2}target"
        )
        assert [target.text for target in targets] == [host]


@pytest.fixture
def key(checks: Field) -> Path:
    path = checks.pytester.path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def is_signed(path: Path, key: Path) -> bool:
    signers = key.with_name("allowed_signers")
    signers.write_text(f"me {key.with_suffix('.pub').read_text()}")
    signature = str(path.with_name(f"{path.name}.sig"))
    done = subprocess.run(
        [
            *("ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", "me"),
            *("-n", "pytest-nixos", "-s", signature),
        ],
        input=path.read_bytes(),
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_reports_and_recordings_are_signed(checks: Field, key: Path) -> None:
    here = checks.pytester.path
    checks.run(
        *(*WEB, "--nixos-report", "json:report.json", "--nixos-record", "kept"),
        *("--nixos-sign", "key"),
    )
    assert is_signed(here / "report.json", key)
    assert is_signed(here / "kept" / "recording.json", key)
    (here / "report.json").write_text(
        (here / "report.json").read_text().replace("FAILED", "x") + " "
    )
    assert not is_signed(here / "report.json", key)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_a_key_that_cannot_sign_is_found_before_anything_is_built(checks: Field, key: Path) -> None:
    locked = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "a passphrase", "-f", str(key)]
    subprocess.run(locked, check=True)
    for name, why in (("key", "ssh-keygen cannot sign"), ("nowhere", "cannot be read")):
        result = checks.run(*WEB, "--nixos-report", "json:report.json", "--nixos-sign", name)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: --nixos-sign */{name}: {why}: *"])
    assert checks.machine_log == []


@pytest.fixture
def minisign_key(checks: Field) -> Path:
    if shutil.which("minisign") is None:
        pytest.skip("needs minisign")
    path = checks.pytester.path / "mini"
    argv = ["minisign", "-G", "-W", "-s", str(path), "-p", str(path.with_suffix(".pub"))]
    subprocess.run(argv, check=True, capture_output=True)
    return path


def is_minisigned(path: Path, key: Path) -> bool:
    argv = ["minisign", "-V", "-m", str(path), "-p", str(key.with_suffix(".pub"))]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    return done.returncode == 0 and f"file:{path.name}" in done.stdout


def test_a_minisign_key_signs_reports_and_recordings(checks: Field, minisign_key: Path) -> None:
    here = checks.pytester.path
    checks.run(
        *(*WEB, "--nixos-report", "json:report.json", "--nixos-record", "kept"),
        *("--nixos-sign", "mini"),
    )
    assert is_minisigned(here / "report.json", minisign_key)
    assert is_minisigned(here / "kept" / "recording.json", minisign_key)
    assert (here / "report.json.minisig").stat().st_mode & 0o777 == 0o600
    (here / "report.json").write_text((here / "report.json").read_text() + " ")
    assert not is_minisigned(here / "report.json", minisign_key)


def test_a_minisign_key_that_cannot_sign(checks: Field, minisign_key: Path) -> None:
    locked = checks.pytester.path / "locked"
    argv = ["minisign", "-G", "-s", str(locked), "-p", str(locked.with_suffix(".pub"))]
    subprocess.run(argv, check=True, capture_output=True, input=b"word\nword\n")
    public = minisign_key.with_suffix(".pub").name
    for name, why in ((locked.name, "the key has a password"), (public, "*actual secret key*")):
        result = checks.run(*WEB, "--nixos-report", "json:report.json", "--nixos-sign", name)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: --nixos-sign */{name}: minisign cannot sign: {why}*"])
    assert checks.machine_log == []


def test_minisign_is_asked_for_where_its_key_is(
    checks: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checks.pytester.path / "mini").write_text(
        "untrusted comment: minisign encrypted secret key\nRWQAAEIy\n"
    )
    monkeypatch.setenv("PATH", str(checks.pytester.path / "empty"))
    result = checks.run(*WEB, "--nixos-report", "json:report.json", "--nixos-sign", "mini")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --nixos-sign */mini: *minisign*"])


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("junk", "is no SSH key and no minisign key"),
        ("directory", "is no plain file"),
        ("open to all", "*Permissions 0644*"),
    ],
)
def test_why_a_key_does_not_sign(checks: Field, key: Path, kind: str, told: str) -> None:
    match kind:
        case "junk":
            key.write_text("junk\n")
        case "directory":
            key.unlink()
            key.mkdir()
        case _:
            key.chmod(0o644)
    result = checks.run(*WEB, "--nixos-report", "json:report.json", "--nixos-sign", "key")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --nixos-sign */key: {told}"])


@pytest.mark.parametrize(
    "reports",
    [
        ("json:{host}.json", "html:web.json"),
        ("json:{host}.json", "html:./{host}.json"),
        ("json:a.json", "csv:a.json.sig"),
        ("json:/dev/stdout",),
        ("json:link",),
    ],
)
def test_a_report_that_would_be_lost_is_refused(
    checks: Field, key: Path, reports: tuple[str, ...]
) -> None:
    (checks.pytester.path / "link").symlink_to("/dev/fd/1")
    given = [word for report in reports for word in ("--nixos-report", report)]
    result = checks.run(*WEB, *given, "--nixos-sign", str(key))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --nixos-report *:*"])
    assert checks.machine_log == []


def test_reports_of_hosts_and_of_all_lie_side_by_side(checks: Field) -> None:
    reports = ("--nixos-report", "json:{host}.json", "--nixos-report", "json:report.json")
    checks.run(*WEB, *reports)
    assert (checks.pytester.path / "web.json").exists()
    assert checks.report()["counts"] == {"failed": 2}
