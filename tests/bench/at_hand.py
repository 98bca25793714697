"""A shell and a command in a host's machine, as people ask for them by hand."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pexpect

from tests.bench.rig import EXAMPLE, HOST, RUN_LIMIT_S, overrides, run_environment

__all__ = ["run_s", "shell_s", "switch_s"]

# What is typed does not hold the answer, which its echo would then be.
_TYPED, _ANSWER = "echo $((6 * 7))answers", "42answers"
_SWITCH = """begun=$EPOCHREALTIME
/run/current-system/bin/switch-to-configuration switch >/dev/null 2>&1
ended=$EPOCHREALTIME
echo $((${ended/./} - ${begun/./}))"""


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


def switch_s(home: Path) -> float:
    """Let a clone switch to the system that it runs: what the host's own program takes, which any test
    of a switch waits for twice.

    :return: seconds by the guest's clock.
    """
    argv = [*_argv("run"), "--", _SWITCH]
    done = subprocess.run(
        argv, cwd=EXAMPLE, env=_environment(home), check=True, capture_output=True, text=True,
        timeout=RUN_LIMIT_S,
    )  # fmt: skip
    return int(done.stdout) / 1e6


def _argv(verb: str) -> list[str]:
    return [sys.executable, "-m", "pytest_nixos", verb, f".#{HOST}", *overrides()]


def _environment(home: Path) -> dict[str, str]:
    return run_environment(home, home / "state", home / "none")
