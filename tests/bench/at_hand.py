"""A shell and a command in a host's machine, as people ask for them by hand."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pexpect

from tests.bench.rig import EXAMPLE, HOST, RUN_LIMIT_S, overrides, run_environment

__all__ = ["run_s", "shell_s"]

# What is typed does not hold the answer, which its echo would then be.
_TYPED, _ANSWER = "echo $((6 * 7))answers", "42answers"


def shell_s(home: Path) -> float:
    """Open a root shell in a clone, with the caches of `home`.

    :return: seconds from the command to the answer of what is typed first.
    """
    program, *words = _argv("shell")
    started_s = time.monotonic()
    shell = pexpect.spawn(
        program, words, cwd=str(EXAMPLE), env=_environment(home), timeout=RUN_LIMIT_S
    )
    try:
        shell.expect_exact("# ")
        shell.sendline(_TYPED)
        shell.expect_exact(_ANSWER)
        answered_s = time.monotonic() - started_s
        shell.sendline("exit")
        shell.expect(pexpect.EOF)
    finally:
        shell.close(force=True)
    return answered_s


def run_s(home: Path) -> float:
    """Run a command in a clone.

    :return: seconds until its answer.
    """
    argv = [*_argv("run"), "--", _TYPED]
    started_s = time.monotonic()
    with subprocess.Popen(
        argv, cwd=EXAMPLE, env=_environment(home), stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as run:  # fmt: skip
        assert run.stdout is not None
        answer = run.stdout.readline().strip()
        answered_s = time.monotonic() - started_s
    if answer != _ANSWER:
        raise RuntimeError(f"{' '.join(argv)}: answered {answer!r}")
    return answered_s


def _argv(verb: str) -> list[str]:
    return [sys.executable, "-m", "pytest_nixos", verb, f".#{HOST}", *overrides()]


def _environment(home: Path) -> dict[str, str]:
    return run_environment(home, home / "state", home / "none")
