"""The next run of a watched session, ready before it is wanted: a process that has imported pytest and
this plugin and waits for a word before it reads anything of the project.

What is imported lies in installed packages. Options, ini files, ``conftest.py`` and tests are read
after the word, as in any run.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["ReadyRun"]

# Of the run only: pytest must find unimported what it rewrites (plugins, their tests' helpers).
_MODULES = (
    "pytest",
    "pytest_nixos.plugin.collect",
    "pytest_nixos.plugin.judging.data_controls",
    "pytest_nixos.plugin.evaluate",
    "pytest_nixos.plugin.fixtures",
    "pytest_nixos.plugin.machines.head_start",
    "pytest_nixos.plugin.machines.next_fresh",
    "pytest_nixos.plugin.record.maker",
    "pytest_nixos.plugin.record.replay",
    "pytest_nixos.machine.vm.backend",
    "pytest_nixos.machine.vm.store_image",
    "pytest_nixos.standards.load",
)
_WORD = b"go"
# As a descriptor that nothing else of a young process has.
_WAITING = 63


class ReadyRun:
    """One run of pytest that waits; a context manager's job is :meth:`close`.

    :param arguments: of pytest.
    :param environment: the whole of it.
    :param as_module: whether the working directory is importable, as ``python -m pytest`` makes it.
    :raises OSError: if no process can be started.
    """

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, as_module: bool
    ) -> None:
        its, self._ours = os.pipe()
        safe_path = () if as_module else ("-P",)
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, *safe_path, "-m", __name__, *arguments],
                dict(environment),
                file_actions=[(os.POSIX_SPAWN_DUP2, its, _WAITING)],
                # The keyboard's Ctrl-C reaches it too, and is none of its business yet.
                setsigmask=[signal.SIGINT],
            )
        except BaseException:
            os.close(self._ours)
            raise
        finally:
            os.close(its)

    def go(self) -> int:
        """Let it run; return its process id, 0 where it is gone."""
        pid, self._pid = self._pid, 0
        try:
            os.write(self._ours, _WORD)
        except OSError:
            os.waitpid(pid, 0)
            return 0
        finally:
            os.close(self._ours)
        return pid

    def close(self) -> None:
        """End it, where it still waits."""
        if self._pid:
            os.close(self._ours)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0

    @staticmethod
    def is_stale(changed: Sequence[Path]) -> bool:
        """Whether something that is imported beforehand may have changed."""
        package = Path(__file__).parents[2]
        return any(
            path.is_relative_to(package) or "site-packages" in path.parts for path in changed
        )


def _wait() -> bool:
    """Import what a run needs, and wait; return whether it is wanted."""
    for name in _MODULES:
        importlib.import_module(name)
    # pytest would say of each plugin that it cannot be rewritten any more; of this one nothing is.
    package = sys.modules["pytest_nixos"]
    package.__doc__ = f"{package.__doc__} PYTEST_DONT_REWRITE"
    word = os.read(_WAITING, len(_WORD))
    os.close(_WAITING)
    return word == _WORD


def main() -> None:
    """Wait, and do what ``python -m pytest`` does."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    if _wait():
        signal.signal(signal.SIGINT, before)
        runpy.run_module("pytest", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
