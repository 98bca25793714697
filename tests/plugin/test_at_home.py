"""At home in pytest: listings without a host, ordinary tests beside tests of hosts, pytest's own
options, and other plugins.
"""

from __future__ import annotations

import json
import sys

import pytest

from tests.plugin.field import Field

WEB = ("--nixos-flake", ".#web", "--nixos-suite", "none")
MIXED = """
import pytest

def test_ordinary(): pass

def test_machine(nixos_machine): pass

@pytest.mark.nixos_control("BOOT-001")
def test_control(host): pass
"""


def test_fixtures_are_listed_without_a_host(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(MIXED)
    result = pytester.runpytest_subprocess("--fixtures")
    assert result.ret == 0
    lines = result.outlines
    for name in ("nixos_machine", "nixos_evidence", "nixos_boot_failure", "nixos_judge"):
        (at,) = [n for n, line in enumerate(lines) if line.startswith(name)]
        assert "no docstring" not in lines[at + 1] and lines[at + 1].startswith("    ")


@pytest.mark.parametrize("option", ["--collect-only", "--setup-plan", "--fixtures-per-test"])
def test_looking_needs_no_host(pytester: pytest.Pytester, option: str) -> None:
    pytester.makepyfile(MIXED)
    result = pytester.runpytest_subprocess(option)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*test_machine*"])


def test_ordinary_tests_run_beside_tests_that_need_a_host(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(MIXED)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1, errors=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.stdout.str().count("needs a host: --nixos-flake REF#HOST, or nixos_flake in") >= 2
    assert "fixture 'nixos_machine' not found" not in result.stdout.str()


def test_fixtures_of_a_flake_are_listed_without_evaluating_it(field: Field) -> None:
    field.pytester.makeini("[pytest]\nnixos_flake = .#web\n")
    field.pytester.makepyfile(MIXED)
    result = field.run("--fixtures")
    assert result.ret == 0
    assert "nixos: web" not in result.stdout.str()


_ORDER = """
import pytest

@pytest.mark.nixos_destructive
def test_c(nixos_machine): pass
def test_a(nixos_machine): pass
def test_b(nixos_machine, request): assert request.config.getoption("nixos_memory") == "7"
"""


@pytest.mark.parametrize(
    ("option", "again"),
    [("--lf", {"failed": 1}), ("--ff", {"failed": 1, "passed": 2}), ("--sw", {"failed": 1})],
)
def test_what_failed_before_comes_again(field: Field, option: str, again: dict[str, int]) -> None:
    field.pytester.makepyfile(_ORDER)
    field.pytester.runpytest_subprocess(*WEB, "--sw" if option == "--sw" else "-q")
    result = field.pytester.runpytest_subprocess(*WEB, option)
    result.assert_outcomes(**again)


def test_a_debugger_gets_the_terminal_and_the_machine_is_stopped(field: Field) -> None:
    field.pytester.makepyfile("def test_a(nixos_machine): assert nixos_machine.name == 'other'")
    child = field.pytester.spawn(
        f"{sys.executable} -m pytest --pdb {' '.join(WEB)}", expect_timeout=60
    )
    child.expect("(Pdb)")
    child.sendline("p nixos_machine.name")
    child.expect("'web'")
    child.sendline("q")
    child.read()
    assert field.machine_log == ["start web", "stop web"]


@pytest.mark.parametrize("option", ["--durations=1", "--import-mode=importlib", "-pno:doctest"])
def test_pytests_own_options_stay_as_they_are(field: Field, option: str) -> None:
    field.pytester.makepyfile("def test_a(nixos_machine): pass")
    field.run(*WEB, option).assert_outcomes(passed=1)


def test_a_config_file_and_a_root_directory_may_lie_elsewhere(field: Field) -> None:
    field.pytester.makepyfile("def test_a(nixos_machine): assert nixos_machine.name == 'web'")
    flake = field.pytester.path
    ini = field.pytester.mkdir("elsewhere") / "own.ini"
    ini.write_text(f"[pytest]\nnixos_flake = {flake}#web\nnixos_suite = none\n")
    own = ("-c", str(ini), f"--rootdir={flake.parent}", f"--confcutdir={flake}")
    field.run(*own, str(flake)).assert_outcomes(passed=1)


def test_a_pytest_within_pytest_boots_and_stops_its_machine(field: Field) -> None:
    field.pytester.makepyfile("def test_a(nixos_machine): assert nixos_machine.name == 'web'")
    for _ in range(2):
        field.pytester.runpytest_inprocess("-pno:cacheprovider", *WEB).assert_outcomes(passed=1)
    assert field.machine_log == ["start web", "stop web"] * 2


_SHUFFLED = """
import pytest

LOG = open("order.log", "a")

@pytest.mark.nixos_destructive
def test_breaks(nixos_machine): print("breaks", nixos_machine.name, file=LOG, flush=True)

@pytest.mark.parametrize("n", range(4))
def test_looks(nixos_machine, n): print("looks", nixos_machine.name, file=LOG, flush=True)
"""


def test_randomly_shuffles_and_a_host_still_boots_once(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pytest_randomly")
    monkeypatch.delenv("PYTEST_ADDOPTS")
    field.pytester.makepyfile(test_one=_SHUFFLED, test_two=_SHUFFLED)
    field.run_hosts().assert_outcomes(passed=20)
    assert len(field.machine_log) == 4
    order = (field.pytester.path / "order.log").read_text().splitlines()
    for host in ("web", "db.one"):
        seen = [line.split()[0] for line in order if line.endswith(f" {host}")]
        assert seen == ["looks"] * 8 + ["breaks"] * 2


def test_a_rerun_gets_a_sound_machine(field: Field) -> None:
    pytest.importorskip("pytest_rerunfailures")
    field.pytester.makepyfile(
        """
        from pathlib import Path
        import pytest

        @pytest.mark.nixos_control("BOOT-001")
        def test_dies_once(nixos_machine):
            if not Path("tried").exists():
                Path("tried").touch()
                nixos_machine.run("die")
            assert nixos_machine.run("echo hi").stdout == b"hi\\n"

        def test_after(nixos_machine): pass
        """
    )
    result = field.run(*WEB, "--reruns", "1", "--nixos-report", "json:report.json")
    result.assert_outcomes(passed=2)
    assert field.machine_log == ["start web", "stop web"] * 2
    (finding,) = field.report()["findings"]
    assert finding["outcome"] == "passed"


def test_a_timeout_ends_a_test_and_not_the_machine(field: Field) -> None:
    pytest.importorskip("pytest_timeout")
    field.pytester.makepyfile(
        """
        import time
        def test_hangs(nixos_machine): time.sleep(30)
        def test_after(nixos_machine): assert nixos_machine.run("echo hi").stdout == b"hi\\n"
        """
    )
    field.run(*WEB, "--timeout", "2").assert_outcomes(failed=1, passed=1)
    assert field.machine_log == ["start web", "stop web"]


_PAIR = """
import pytest

@pytest.mark.nixos_control("BOOT-001")
def test_bad(nixos_machine): assert 0, "failed: x.service"
def test_good(nixos_machine): pass
"""


def test_html_shows_our_items(field: Field) -> None:
    pytest.importorskip("pytest_html")
    field.pytester.makepyfile(_PAIR)
    field.run(*WEB, "--html", "out.html", "--self-contained-html").assert_outcomes(
        failed=1, passed=1
    )
    page = (field.pytester.path / "out.html").read_text()
    assert "test_bad[web]" in page and "BOOT-001" in page


def test_coverage_is_measured_beside_a_host(field: Field) -> None:
    pytest.importorskip("pytest_cov")
    field.pytester.makepyfile(_PAIR)
    result = field.run(*WEB, "--cov", ".", "--cov-report", "term")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["TOTAL*"])


def test_asyncio_tests_may_use_a_machine(field: Field) -> None:
    pytest.importorskip("pytest_asyncio")
    field.pytester.makepyfile(
        """
        import asyncio
        import pytest

        @pytest.mark.asyncio
        async def test_async(nixos_machine):
            done = await asyncio.to_thread(nixos_machine.run, "echo hi")
            assert done.stdout == b"hi\\n"
        """
    )
    field.run(*WEB).assert_outcomes(passed=1)


def test_subtests_of_a_control_make_one_finding(field: Field) -> None:
    if not hasattr(pytest, "Subtests"):
        pytest.importorskip("pytest_subtests")
    field.pytester.makepyfile(
        """
        import pytest

        @pytest.mark.nixos_control("BOOT-001")
        def test_parts(nixos_machine, subtests):
            for n in range(3):
                with subtests.test(n=n):
                    assert n != 1, "the second part is wrong"
        """
    )
    result = field.run(*WEB, "--nixos-report", "json:report.json")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (finding,) = field.report()["findings"]
    assert finding["outcome"] == "failed"


def test_allure_gets_an_item_a_control_and_host(field: Field) -> None:
    pytest.importorskip("allure_pytest")
    field.pytester.makepyfile(_PAIR)
    field.run_hosts("--alluredir", "allure").assert_outcomes(failed=2, passed=2)
    results = [
        json.loads(file.read_text())
        for file in (field.pytester.path / "allure").glob("*-result.json")
    ]
    found = sorted((one["name"], one["status"]) for one in results)
    assert found == [
        ("test_bad[db.one]", "failed"),
        ("test_bad[web]", "failed"),
        ("test_good[db.one]", "passed"),
        ("test_good[web]", "passed"),
    ]
    assert all(
        "failed: x.service" in one["statusDetails"]["message"]
        for one in results
        if one["status"] == "failed"
    )
    assert len(field.machine_log) == 4
