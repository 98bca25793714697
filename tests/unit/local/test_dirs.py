"""Where this project keeps what is the user's, and whose a file is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pytest_nixos.local.dirs import cache_directory, is_private, make_private, state_directory


@pytest.mark.parametrize(
    ("variables", "cache", "state"),
    [
        ({"XDG_CACHE_HOME": "/c", "XDG_STATE_HOME": "/s"}, "/c", "/s"),
        ({}, "/h/.cache", "/h/.local/state"),
        ({"XDG_CACHE_HOME": "", "XDG_STATE_HOME": " "}, "/h/.cache", "/h/.local/state"),
        ({"XDG_CACHE_HOME": "c", "XDG_STATE_HOME": "./s"}, "/h/.cache", "/h/.local/state"),
    ],
)
def test_directories(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], cache: str, state: str
) -> None:
    monkeypatch.setenv("HOME", "/h")
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
        if name in variables:
            monkeypatch.setenv(name, variables[name])
    assert str(cache_directory("kvm")) == f"{cache}/pytest-nixos/kvm"
    assert str(state_directory("ledgers")) == f"{state}/pytest-nixos/ledgers"


def test_private_is_what_nobody_else_can_have_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "f"
    file.write_text("")
    file.chmod(0o600)
    assert is_private(file)
    for mode in (0o620, 0o602):
        file.chmod(mode)
        assert not is_private(file)
    file.chmod(0o600)
    link = tmp_path / "l"
    link.symlink_to(file)
    assert not is_private(link)
    monkeypatch.setattr("os.geteuid", lambda: 4242)
    assert not is_private(file)


def test_directories_are_private_whatever_the_umask(tmp_path: Path) -> None:
    wanted = tmp_path / "cache/pytest-nixos/kvm"
    before = os.umask(0)
    try:
        make_private(wanted)
        make_private(wanted)
    finally:
        os.umask(before)
    made = [wanted, *list(wanted.parents)[:2]]
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o700}
