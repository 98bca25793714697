"""Progress: flushed lines where there is no terminal, one moving line on one, and a word from
every long item.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest

from tests.plugin.field import Field

WEB = ("--nixos-flake", ".#web", "--nixos-suite", "none")
_STORY = """
import time

import pytest_nixos.plugin.progress as progress
progress.LONG_S = progress._SELDOM_S = 0.5  # however long the machine takes to start


def test_story(nixos_machine, nixos_progress):
    nixos_progress("switching \\x1b[31mnow")
    time.sleep(1.2)
"""


def test_lines_reach_a_pipe_at_once(field: Field) -> None:
    field.pytester.makepyfile("import time\ndef test_a(nixos_machine): time.sleep(6)")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *WEB]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=field.pytester.path) as run:
        assert run.stdout is not None
        while b"evaluating" not in (line := run.stdout.readline()):
            assert line, "the run ended without a word"
        seen_s = time.monotonic()
        run.wait()
    assert time.monotonic() - seen_s > 5


def test_a_long_item_tells_where_it_is(field: Field) -> None:
    field.pytester.makepyfile(_STORY)
    result = field.run(*WEB)
    result.assert_outcomes(passed=1)
    assert re.search(
        r"^nixos: test_story\[web\]: switching \ufffd\[31mnow \(\d+ s\)$",
        result.stdout.str(),
        re.MULTILINE,
    )


def test_a_short_item_says_nothing(field: Field) -> None:
    field.pytester.makepyfile("def test_a(nixos_machine): pass")
    assert "test_a[web]:" not in field.run(*WEB).stdout.str()


def test_a_terminal_has_one_moving_line(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    field.pytester.makepyfile(_STORY)
    child = field.pytester.spawn(
        f"{sys.executable} -m pytest -p no:cacheprovider {' '.join(WEB)}", expect_timeout=60
    )
    shown = child.read().decode()
    assert "test_story[web]: switching" in shown
    assert "\x1b[31mnow" not in shown
    assert "1 passed" in shown
    # It moves: what it showed is erased.
    assert "\x1b[2K" in shown or "\x1b[K" in shown
    assert os.isatty(child.child_fd) or child.closed


@pytest.mark.parametrize("arguments", [(), ("-n", "1")])
def test_captured_output_stays_captured(field: Field, arguments: tuple[str, ...]) -> None:
    field.pytester.makepyfile("def test_a(nixos_progress): print('mine'); nixos_progress('x')")
    assert "mine" not in field.run(*WEB, *arguments).stdout.str()


def test_a_terminal_that_cannot_move_gets_lines(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    field.pytester.makepyfile(_STORY)
    child = field.pytester.spawn(
        f"{sys.executable} -m pytest -p no:cacheprovider {' '.join(WEB)}", expect_timeout=60
    )
    assert "test_story[web]: switching" in child.read().decode()
