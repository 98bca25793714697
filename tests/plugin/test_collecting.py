"""Which checks are collected: bundled suites beside the user's tests, and how they are named."""

from __future__ import annotations

import pytest

from tests.plugin.field import Field


def test_bundled_suites_come_with_the_users_tests(field: Field) -> None:
    field.pytester.makepyfile("def test_mine(nixos_host_config): pass")
    result = field.run("--nixos-flake", ".#web", "--collect-only", "-q")
    result.stdout.fnmatch_lines_random(
        [
            "*test_bundled_suites_come_with_the_users_tests.py::test_mine[[]web[]]",
            "pytest_nixos/checks/boot/test_boot.py::test_no_unit_has_failed[[]web[]]",
            "pytest_nixos/checks/firewall/test_firewall.py::*[[]web[]]",
        ]
    )
    assert result.ret == 0


def test_named_paths_leave_the_bundled_suites_out(field: Field) -> None:
    path = field.pytester.makepyfile("def test_mine(nixos_host_config): pass")
    result = field.run("--nixos-flake", ".#web", "--collect-only", "-q", str(path))
    result.stdout.fnmatch_lines(["*1 test collected*"])


def test_named_paths_and_a_suite(field: Field) -> None:
    path = field.pytester.makepyfile("def test_mine(nixos_host_config): pass")
    result = field.run(
        *("--nixos-flake", ".#web", "--collect-only", "-q", "--nixos-suite", "boot", str(path))
    )
    text = result.stdout.str()
    assert "::test_mine" in text and "checks/boot" in text
    assert "checks/firewall" not in text


def test_pyargs_collects_the_suites(field: Field) -> None:
    result = field.run(
        *("--nixos-flake", ".#web", "--collect-only", "-q", "--pyargs", "pytest_nixos.checks.boot")
    )
    result.stdout.fnmatch_lines(["pytest_nixos/checks/boot/test_boot.py::*"])
    assert "firewall" not in result.stdout.str()


def test_repository_with_checks_of_its_own_is_no_obstacle(field: Field) -> None:
    package = field.pytester.mkpydir("checks")
    (package / "test_own.py").write_text("def test_own(nixos_host_config): pass")
    result = field.run("--nixos-flake", ".#web", "--collect-only", "-q")
    assert result.ret == 0
    result.stdout.fnmatch_lines_random(["checks/test_own.py::*", "pytest_nixos/checks/boot/*"])


@pytest.mark.parametrize(
    ("expression", "count"), [("FW-003", 1), ("FW-003 or FW-004", 2), ("zram", 4)]
)
def test_keyword_finds_controls_and_suites(field: Field, expression: str, count: int) -> None:
    result = field.run("--nixos-flake", ".#web", "--collect-only", "-q", "-k", expression)
    assert f"{count}/" in result.stdout.lines[-1] or f"{count} test" in result.stdout.str()


def test_marker_expression_selects(field: Field) -> None:
    result = field.run("--nixos-flake", ".#web", "--collect-only", "-q", "-m", "nixos_destructive")
    assert "rollback" in result.stdout.str() and "firewall" not in result.stdout.str()


def test_result_link_is_not_searched(field: Field) -> None:
    store = field.pytester.path / "result"
    store.symlink_to("/nix/store/00000000000000000000000000000000-x")
    field.pytester.makepyfile("def test_mine(nixos_host_config): pass")
    assert field.run_hosts("--collect-only").ret == 0
