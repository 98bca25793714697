"""Where pytest took its settings from: a path that stands as a word of its own behind one of our
options looks to pytest like a place to test.

pytest chooses its ini file before it loads plugins: it takes each word of the command line that is a
path for a place whose ini file counts (pytest's reference, "Configuration file formats", "Finding the
rootdir"). ``--nixos-file /etc/nixos/configuration.nix`` so leaves the user's own ini file unread, and
``--nixos-replay DIR`` lets a recording that somebody sent say what pytest runs. ``--option=PATH`` is
one word, and nothing of that happens.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pytest_nixos.errors import SettingsError

__all__ = ["refuse_settings_of_others"]

_ALWAYS_ONE_WORD = frozenset({"--nixos-replay"})
# What marks a file as pytest's, as findpaths.py of pytest reads it; "" for a file that always is.
_INI_FILES = (
    *(("pytest.toml", ""), (".pytest.toml", ""), ("pytest.ini", ""), (".pytest.ini", "")),
    *(("pyproject.toml", "[tool.pytest"), ("tox.ini", "[pytest]"), ("setup.cfg", "[tool:pytest]")),
)


def refuse_settings_of_others(config: pytest.Config) -> None:
    """Refuse a run in which the settings of where it was started are not read, since a path stands
    behind one of our options. Where there are none, those of a flake or file that is tested may
    count: its author is trusted with more.

    :raises SettingsError: then, and where what is named may come from strangers.
    """
    cwd = config.invocation_params.dir
    given = list(_paths(config.invocation_params.args, cwd))
    for option, path in given:
        if option in _ALWAYS_ONE_WORD:
            raise SettingsError(
                f"{option} {path}: pytest takes settings, and what they run, from a directory that is a word of its own",
                remedy=f"write one word: {option}={path}",
            )
    if not given or config.option.rootdir or config.option.inifilename or _names_tests(config):
        return
    own = _own(cwd)
    if own is not None and config.inipath != own:
        option, path = given[0]
        raise SettingsError(
            f"{option} {path}: pytest takes its settings from {config.inipath or 'no file'} for it,"
            f" and those in {own} are not read",
            remedy=f"write one word: {option}={path}",
        )


def _paths(args: Sequence[str], cwd: Path) -> Iterator[tuple[str, str]]:
    """Find our options whose value is a word of its own and a path."""
    for option, value in itertools.pairwise(args):
        one_word = "=" in option or not option.startswith("--nixos-")
        if not one_word and not value.startswith("-") and (cwd / value.partition("::")[0]).exists():
            yield option, value


def _names_tests(config: pytest.Config) -> bool:
    """Whether tests are named: their place decides then, and rightly."""
    return bool(config.option.file_or_dir)


def _own(cwd: Path) -> Path | None:
    """Find the ini file that counts where no path is named."""
    for directory in (cwd, *cwd.parents):
        for name, mark in _INI_FILES:
            file = directory / name
            if file.is_file() and (not mark or mark in file.read_text(errors="replace")):
                return file
    return None
