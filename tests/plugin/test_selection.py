"""Only what the selection needs: hosts are listed first, and evaluated where a selected test is
about them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugin.field import Field


@pytest.fixture
def evaluated(field: Field, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that the fake Nix writes evaluated hosts to."""
    log = field.pytester.path / "evaluated.log"
    log.write_text("")
    monkeypatch.setenv("FAKE_NIX_LOG", str(log))
    return log


TESTS = """
def test_config(nixos_host_config): pass
def test_other(nixos_machine): pass
def test_plain(): pass
"""


def test_hosts_without_a_selected_test_are_not_evaluated(field: Field, evaluated: Path) -> None:
    field.pytester.makepyfile(TESTS)
    result = field.run_hosts("-k", "test_config and web")
    result.assert_outcomes(passed=1, deselected=4)
    assert evaluated.read_text().split() == ["web"]
    assert field.machine_log == []
    assert "db.one" not in result.stdout.str()


def test_tests_without_a_host_evaluate_nothing(field: Field, evaluated: Path) -> None:
    field.pytester.makepyfile(TESTS)
    field.run_hosts("-k", "test_plain").assert_outcomes(passed=1, deselected=4)
    assert evaluated.read_text() == ""


def test_collecting_evaluates_nothing(field: Field, evaluated: Path) -> None:
    field.pytester.makepyfile(TESTS)
    result = field.run_hosts("--collect-only", "-q")
    result.stdout.fnmatch_lines(["*test_config[[]db.one[]]", "*test_config[[]web[]]"])
    assert evaluated.read_text() == ""


def test_under_xdist_hosts_are_evaluated_once_for_all_workers(
    field: Field, evaluated: Path
) -> None:
    field.pytester.makepyfile(TESTS)
    field.run_hosts("-n", "2").assert_outcomes(passed=5)
    assert sorted(evaluated.read_text().split()) == ["db.one", "web"]


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_an_image_is_left_out_and_named_unless_it_is_asked_for(
    field: Field, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    monkeypatch.setenv("FAKE_NIX_HOSTS", "iso web")
    field.pytester.makepyfile("def test_config(nixos_host_config): pass")
    result = field.run_hosts(*workers)
    result.assert_outcomes(passed=1, deselected=0 if workers else 1)
    result.stdout.fnmatch_lines(
        [
            "*iso: left out: it is an ISO image, no machine that stays",
            "*iso: to test it, name it: --nixos-flake *#iso*",
        ]
    )
    field.run("--nixos-flake", ".#iso", "--nixos-suite", "none").assert_outcomes(passed=1)


def test_only_images_are_an_error(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_NIX_HOSTS", "iso")
    field.pytester.makepyfile("def test_config(nixos_host_config): pass")
    result = field.run_hosts()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*it is an ISO image*", "*remedy: to test it, name it*"])


@pytest.mark.parametrize(
    ("builders", "says"),
    [("", "names no builder for aarch64-linux"), ("ssh://arm aarch64-linux", "a remote builder")],
)
def test_a_host_of_another_system_says_what_it_takes_before_the_build(
    field: Field, monkeypatch: pytest.MonkeyPatch, builders: str, says: str
) -> None:
    monkeypatch.setenv("FAKE_NIX_HOSTS", "arm")
    monkeypatch.setenv("FAKE_NIX_BUILDERS", builders)
    log = field.pytester.path / "builds.log"
    monkeypatch.setenv("FAKE_NIX_BUILDS", str(log))
    field.pytester.makepyfile(
        "def test_config(nixos_host_config): pass\ndef test_machine(host): pass"
    )
    result = field.run_hosts()
    result.stdout.fnmatch_lines([f"*arm: a host for aarch64-linux: *{says}*"])
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*the host is for aarch64-linux: this machine is x86_64-linux*"])
    assert not log.exists(), "built although it cannot run"


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        ((), True),
        (("--nixos-backend", "ssh", "--nixos-ssh", "root@{host}"), False),
        (("--collect-only",), False),
    ],
)
def test_another_kernel_is_refused_before_anything_is_evaluated(
    field: Field, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], refused: bool
) -> None:
    field.pytester.makepyfile("def test_config(nixos_host_config): pass")
    field.pytester.makeconftest('import platform; platform.system = lambda: "Darwin"')
    result = field.run_hosts(*arguments)
    assert ("-darwin: a NixOS guest" in result.stderr.str()) is refused
    assert (result.ret == pytest.ExitCode.USAGE_ERROR) is refused


def test_only_hosts_whose_tests_start_a_machine_are_built(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = field.pytester.path / "builds.log"
    monkeypatch.setenv("FAKE_NIX_BUILDS", str(log))
    monkeypatch.setenv("FAKE_NIX_HOSTS", "a b c d")
    field.pytester.makepyfile(
        """
        import pytest
        def test_config(nixos_host_config): pass
        @pytest.mark.nixos_hosts("[abc]")
        def test_machine(host): pass
        """
    )
    field.run_hosts("-k", "test_config or not [c]").assert_outcomes(passed=6, deselected=1)
    ahead, *each = log.read_text().splitlines()
    assert ahead == "/nix/store/a.drv^* /nix/store/b.drv^*"
    assert each == ["/nix/store/a.drv^*", "/nix/store/b.drv^*"]


@pytest.mark.parametrize(("test", "deselected"), [("", 1), ("::test_the_desktop_is_up[web]", 1)])
def test_what_the_profile_leaves_out_is_no_item_of_each_host(
    field: Field, test: str, deselected: int
) -> None:
    check = f"pytest_nixos.checks.desktop.test_desktop{test}"
    profile = ("--nixos-profile", "devshell")
    arguments = ("--collect-only", "-q", *profile, "--pyargs", check)
    result = field.run("--nixos-flake", ".", *arguments)
    # Named by its id it is there, and told as left out.
    result.stdout.fnmatch_lines([f"no tests collected ({deselected} deselected)*"])
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_what_the_profile_selects_is_one_item_of_each_host(field: Field) -> None:
    check = "pytest_nixos.checks.desktop.test_desktop"
    arguments = ("--collect-only", "-q", "--nixos-profile", "baseline", "--pyargs", check)
    result = field.run("--nixos-flake", ".", *arguments)
    result.stdout.fnmatch_lines(["*is_up[[]db.one[]]", "*is_up[[]web[]]", "2 tests collected*"])
