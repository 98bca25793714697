"""Without --nixos-flake the plugin stays out of the way, and no check runs on the developer's
machine.
"""

from __future__ import annotations

from pathlib import Path

import pytest


def test_other_tests_are_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_a(): pass")
    pytester.runpytest_subprocess("--strict-markers").assert_outcomes(passed=1)


def test_testinfra_keeps_its_own_host_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_a(host): assert host.backend.NAME == 'local'")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    "source",
    [
        "def test_a(nixos_machine): pass",
        "import pytest\n@pytest.mark.nixos_control('BOOT-001')\ndef test_a(host): pass",
    ],
)
def test_test_that_needs_a_host_is_an_error(pytester: pytest.Pytester, source: str) -> None:
    pytester.makepyfile(source)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["needs a host: --nixos-flake REF#HOST, or nixos_flake in*"])


NEVER_HERE = "def test_a(host): assert host.backend.NAME == 'local'"


@pytest.mark.parametrize("sign", ["flake.nix", "a test of ours", "a setting of ours"])
def test_testinfras_host_is_not_this_machine_by_accident(
    pytester: pytest.Pytester, sign: str
) -> None:
    pytester.makepyfile(NEVER_HERE)
    if sign == "flake.nix":
        pytester.path.joinpath("flake.nix").write_text("{ }")
    elif sign == "a test of ours":
        pytester.makepyfile(test_ours="def test_b(nixos_machine): pass")
    else:
        pytester.makeini("[pytest]\nnixos_profile = baseline\n")
    deselected = ("-k", "test_a")
    result = pytester.runpytest_subprocess(*deselected)
    result.assert_outcomes(errors=1, deselected=int(sign == "a test of ours"))
    result.stdout.fnmatch_lines(["needs a host: --nixos-flake REF#HOST*--hosts=local://"])
    # Whoever means it says so, in either of testinfra's ways.
    pytester.runpytest_subprocess(*deselected, "--hosts=local://").assert_outcomes(
        passed=1, deselected=int(sign == "a test of ours")
    )
    pytester.makepyfile(f"testinfra_hosts = ['local://']\n{NEVER_HERE}")
    pytester.runpytest_subprocess(*deselected).assert_outcomes(
        passed=1, deselected=int(sign == "a test of ours")
    )


def test_bundled_checks_are_errors(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--pyargs", "pytest_nixos.checks", "-x")
    result.assert_outcomes(errors=1)


def test_heavy_modules_are_not_imported(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys
        def test_a():
            heavy = ["pexpect", "jsonschema", "rich", "qemu.qmp", "pytest_nixos.plugin.run_hooks"]
            assert [name for name in heavy if name in sys.modules] == []
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_next_to_nothing_of_ours_is_imported(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import gc, sys
        def test_a():
            assert gc.get_freeze_count() == 0
            ours = {name for name in sys.modules if name.startswith("pytest_nixos.")}
            rooms = {"plugin", "plugin.settings", "machine", "machine.snapshot", "machine.snapshot.limits"}
            plugin = {"plugin.hooks", "plugin.plain_import", "plugin.hookspecs", "plugin.settings.declared_options"}
            known = rooms | plugin | {"backend_name", "errors"}
            assert ours <= {f"pytest_nixos.{name}" for name in known}, ours
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize("where", ["option", "ini"])
def test_wrong_setting_is_told_without_a_host(pytester: pytest.Pytester, where: str) -> None:
    pytester.makepyfile("def test_a(): pass")
    if where == "ini":
        pytester.makeini("[pytest]\nnixos_fail_on = nonsense")
    result = pytester.runpytest_subprocess(
        *(["--nixos-fail-on", "nonsense"] if where == "option" else [])
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--nixos-fail-on: got 'nonsense'*"])


def test_result_links_are_only_ignored_where_hosts_are_tested(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_a(): pass")
    Path(pytester.path / "result").symlink_to("/nix/store")
    pytester.runpytest_subprocess(
        "test_result_links_are_only_ignored_where_hosts_are_tested.py"
    ).assert_outcomes(passed=1)
