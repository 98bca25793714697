"""A path behind one of our options does not decide which settings pytest reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugin.field import Field


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "flake.nix").write_text("{ }")
    return folder


def test_a_recording_is_never_a_word_of_its_own(field: Field, elsewhere: Path) -> None:
    result = field.pytester.runpytest("--nixos-replay", str(elsewhere))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*directory that is a word of its own*", f"*={elsewhere}"])


def test_settings_that_are_not_read_are_told(field: Field, elsewhere: Path) -> None:
    field.pytester.makeini("[pytest]\nnixos_profile = hardened\n")
    result = field.pytester.runpytest("--nixos-flake", str(elsewhere), "--collect-only")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*and those in *tox.ini are not read", f"*--nixos-flake={elsewhere}"]
    )


@pytest.mark.parametrize("name", ["tox.ini", "setup.cfg", "pyproject.toml"])
def test_files_without_settings_of_pytest_are_nobodys_settings(
    field: Field, elsewhere: Path, name: str
) -> None:
    (field.pytester.path / name).write_text('[build-system]\nrequires = ["x"]\n')
    result = field.pytester.runpytest("--nixos-flake", str(elsewhere), "--collect-only")
    assert "are not read" not in result.stderr.str()


@pytest.mark.parametrize("words", [("--nixos-flake", "."), ("--nixos-flake=@",)])
def test_the_users_own_settings_are_read(
    field: Field, elsewhere: Path, words: tuple[str, ...]
) -> None:
    field.pytester.makeini("[pytest]\nnixos_suite = none\n")
    given = [word.replace("@", str(elsewhere)) for word in words]
    result = field.pytester.runpytest(*given, "--collect-only")
    assert "are not read" not in result.stderr.str()
