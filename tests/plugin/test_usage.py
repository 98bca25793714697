"""Bad input is one clear error with a remedy, exit 4 and no traceback."""

from __future__ import annotations

import pytest

from tests.plugin.field import Field


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nixos-flake", ".#nope"], ["*nope*db.one, web*"]),
        (["--nixos-flake", ".#"], ["*no host name*"]),
        (["--nixos-flake", ".#web", "--nixos-boot-timeout", "soon"], ["*boot-timeout*'soon'*"]),
        (
            ["--nixos-flake", ".#web", "--nixos-fail-on", "awful"],
            ["*fail-on*'awful'*", "*critical*"],
        ),
        (["--nixos-flake", ".#web", "--nixos-report", "pdf:x"], ["*pdf*no such format*", "*json*"]),
        (["--nixos-flake", ".#web", "--nixos-report", "json"], ["*report*'json'*"]),
        (
            ["--nixos-flake", ".#web", "--nixos-report", "json:{host}/x.json"],
            ["*report*'json:{host}/x.json'*", "*in the file's name, and not in a folder's"],
        ),
        (["--nixos-flake", ".#web", "--nixos-suite", "firewal"], ["*no such suite*", "*firewall*"]),
        (["--nixos-flake", ".#web", "--nixos-profile", "stigg"], ["*stigg*"]),
        (["--nixos-flake", ".#web", "--nixos-memory", "-1"], ["*memory*'-1'*"]),
        (["--nixos-flake", ".#web", "--nixos-cache-size", "0"], ["*cache-size*'0'*", "*GiB*"]),
        (["--nixos-flake", ".#web", "--nixos-cache-age", "old"], ["*cache-age*'old'*", "*days*"]),
        (["--nixos-flake", ".#web", "--nixos-waivers", "none.toml"], ["*none.toml*"]),
        (["--nixos-flake", ".#web", "--nixos-secret", "token"], ["*'token'*", "*NAME=FILE*"]),
        (
            ["--nixos-flake", ".#web", "--nixos-secret", "token=kind:passwort"],
            ["*token*'passwort'*", "*password-hash*"],
        ),
        (["--nixos-flake", ".#web", "--nixos-secret", "token=none.txt"], ["*token*none.txt*"]),
        (
            ["--nixos-flake", ".#web", "--nixos-secret", "tokn=kind:hex"],
            ["*tokn*no such secret*", "*api-token*"],
        ),
        (["--nixos-flake", ".#web", "--nixos-real-secrets-key", "conftest.py"], ["*conftest.py*"]),
    ],
)
def test_bad_option_is_a_usage_error(field: Field, arguments: list[str], words: list[str]) -> None:
    field.pytester.makepyfile("def test_a(host): pass")
    result = field.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {words[0]}" if words[0][0] != "*" else words[0]])
    text = result.stderr.str() + result.stdout.str()
    assert "Traceback" not in text and "INTERNALERROR" not in text
    assert "remedy:" in text
    result.stderr.fnmatch_lines(words)


def test_missing_nix_is_a_usage_error(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(field.pytester.mkdir("empty")))
    field.pytester.makepyfile("def test_a(host): pass")
    result = field.run("--nixos-flake", ".#web")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*Nix is not installed*"])


def test_unknown_control_is_a_usage_error_with_the_nearest_one(field: Field) -> None:
    field.pytester.makepyfile(
        "import pytest\n@pytest.mark.nixos_control('BOOT-01')\ndef test_a(host): pass"
    )
    result = field.run_hosts()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*BOOT-01*BOOT-001*"])


def test_marker_without_name_is_a_usage_error(field: Field) -> None:
    field.pytester.makepyfile("import pytest\n@pytest.mark.nixos_hosts(1)\ndef test_a(host): pass")
    result = field.run_hosts()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*marker nixos_hosts*"])


def test_evaluation_error_of_the_only_host_shows_the_users_message(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NIX_HOSTS", "broken")
    field.pytester.makepyfile("def test_a(host): pass")
    result = field.run("--nixos-flake", ".#broken")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*services.nonsense* does not exist*"])
    assert "Traceback" not in result.stderr.str()


def test_ini_setting_is_used_and_the_command_line_beats_it(field: Field) -> None:
    field.pytester.makeini("[pytest]\nnixos_flake = .#web\nnixos_fail_on = awful\n")
    field.pytester.makepyfile("def test_a(nixos_host_config): pass")
    assert field.run().ret == pytest.ExitCode.USAGE_ERROR
    result = field.run("--nixos-fail-on", "low", "--nixos-suite", "none")
    result.assert_outcomes(passed=1)


def test_marker_with_an_unknown_place_is_a_usage_error(field: Field) -> None:
    field.pytester.makepyfile(
        "import pytest\n@pytest.mark.nixos_requires('vm', 'moon')\ndef test_a(host): pass"
    )
    result = field.run_hosts()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*'moon'*cannot be that*", "*bare-metal, container, vm*"])
