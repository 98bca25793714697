"""Tells people what a long step is doing: one moving line on a terminal, plain lines elsewhere,
each flushed as it comes.

Steps that this plugin takes itself (evaluate, build, boot) tell while pytest's capture is off. An
item that runs for long is told by a watch of its own, which writes to a copy of the terminal that
pytest's capture does not see.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import IO, TYPE_CHECKING, Protocol

import pytest

from pytest_nixos.local.text import printable
from pytest_nixos.machine.boot.events import BootEvent, BootEventKind
from pytest_nixos.nix.command.log import BuildProgress, describe

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

__all__ = ["LONG_S", "HeldProgress", "Progress"]

# After this long an item tells where it is, and then ever more seldom.
LONG_S = 10.0
_SELDOM_S = 60.0
_PLAIN_INTERVAL_S = 15.0
_MOST_LENGTH = 200
# Terminals that take lines and no movements.
_CANNOT_MOVE = ("dumb", "unknown")


class _Reporter(Protocol):
    @property
    def isatty(self) -> bool: ...
    def write_line(self, line: str, **markup: bool) -> None: ...
    def ensure_newline(self) -> None: ...
    def flush(self) -> None: ...


class Progress:
    """Writes past pytest's capture; silent where there is no terminal reporter (xdist's workers).

    Safe to call from any thread between entering and leaving :meth:`speaking`; quiet outside of it,
    but for what an item tells of itself.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._lock = threading.RLock()
        self._speaking = False
        self._last_at_s = float("-inf")
        self._told_of_kvm = False
        self._terminal_copy = _copy_of(sys.stdout)
        self._moving: RichProgress | None = None
        self._watch: _Watch | None = None
        self._watcher = _Watcher(self._still_running)
        config.add_cleanup(self._close)

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Switch pytest's output capture off while a long step runs."""
        with self._capture_disabled():
            self._speaking = self._reporter is not None
            try:
                yield
            finally:
                self._stop_moving()
                self._speaking = False

    def say(self, text: str) -> None:
        """Write one line that stays."""
        with self._lock:
            self._stop_moving()
            reporter = self._reporter
            if self._speaking and reporter is not None:
                reporter.write_line(_line(text))
                # A pipe or a file would get it minutes later.
                reporter.flush()

    def moving(self, text: str) -> None:
        """Show a state that the next one replaces: at once on a terminal, every 15 s elsewhere."""
        if not self._speaking:
            return
        if self._is_terminal:
            self._move(text)
            return
        with self._lock:
            if time.monotonic() - self._last_at_s < _PLAIN_INTERVAL_S:
                return
            self._last_at_s = time.monotonic()
        self.say(text)

    def tell(self, text: str) -> None:
        """Show a state from within a test, whose output pytest captures."""
        watch = self._watch
        if watch is not None:
            watch.state = text
        if self._is_terminal:
            self._move(text if watch is None else f"{watch.what}: {text}")
            return
        with self.speaking():
            self.moving(text)

    @contextmanager
    def watching(self, what: str) -> Iterator[None]:
        """Tell of an item that takes long, whether or not it tells itself.

        :param what: names it.
        """
        if self._reporter is None or self._terminal_copy is None:
            yield
            return
        self._watch = watch = _Watch(what)
        self._watcher.begin(watch)
        try:
            yield
        finally:
            self._watch = None
            self._watcher.end()
            self._stop_moving()

    def hush(self) -> None:
        """Tell nothing more of the running item: somebody debugs it."""
        if self._watch is not None:
            self._watcher.end()
        self._stop_moving()

    def build(self, progress: BuildProgress) -> None:
        """Show how far Nix has come; a :data:`pytest_nixos.nix.command.log.ProgressSink`."""
        self.moving(describe(progress))

    def boot(self, event: BootEvent) -> None:
        """Show one event of a boot; a :data:`pytest_nixos.machine.boot.events.BootListener`."""
        if event.kind is BootEventKind.NO_KVM:
            if not self._told_of_kvm:
                self._told_of_kvm = True
                self.say(event.text)
            return
        text = f"{event.machine}: {event.at_s:.1f} s: {event.text}"
        if event.kind is BootEventKind.PHASE:
            self.moving(text)
        else:
            self.say(text)

    @property
    def _reporter(self) -> _Reporter | None:
        return self._config.pluginmanager.get_plugin("terminalreporter")

    @property
    def _is_terminal(self) -> bool:
        reporter = self._reporter
        able = os.environ.get("TERM") not in _CANNOT_MOVE
        return able and reporter is not None and reporter.isatty and self._terminal_copy is not None

    def _still_running(self, watch: _Watch, seconds: float) -> None:
        text = f"{watch.what}: {watch.state}" if watch.state else watch.what
        with self._lock:
            if self._is_terminal:
                self._move(text)
            elif self._terminal_copy is not None:
                # The line of pytest's dots is not at its end.
                self._terminal_copy.write(f"\n{_line(f'{text} ({seconds:.0f} s)')}\n")
                self._terminal_copy.flush()

    def _move(self, text: str) -> None:
        with self._lock:
            if self._moving is None:
                self._moving = self._begin_moving()
            if self._moving is not None:
                self._moving.update(self._moving.tasks[0].id, description=_line(text))

    def _begin_moving(self) -> RichProgress | None:
        # Loaded when the first line moves: it costs every other run some 100 ms.
        from rich.console import Console
        from rich.progress import Progress as RichProgress
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.table import Column

        reporter = self._reporter
        if self._terminal_copy is None or reporter is None:
            return None
        if self._speaking:
            reporter.ensure_newline()
            reporter.flush()
        else:
            self._terminal_copy.write("\n")
        moving = RichProgress(
            SpinnerColumn(),
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            TimeElapsedColumn(),
            console=Console(file=self._terminal_copy, force_terminal=True),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            expand=True,
        )
        moving.add_task("", total=None)
        moving.start()
        return moving

    def _stop_moving(self) -> None:
        with self._lock:
            if self._moving is not None:
                self._moving.stop()
                self._moving = None

    def _capture_disabled(self) -> AbstractContextManager[None]:
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        return nullcontext() if capture is None else capture.global_and_fixture_disabled()

    def _close(self) -> None:
        self._watcher.close()
        self._stop_moving()
        if self._terminal_copy is not None:
            self._terminal_copy.close()


class HeldProgress:
    """What is told of a step that nobody waits for yet: kept, and passed on when somebody does."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._kept: list[Callable[[], None]] | None = []

    def release(self) -> None:
        """Tell what was kept, in its order; what comes from now on is told at once."""
        with self._lock:
            kept, self._kept = self._kept or [], None
        for tell in kept:
            tell()

    def speaking(self) -> AbstractContextManager[None]:
        """See :meth:`Progress.speaking`; while all is kept, pytest's capture is left alone."""
        return self._progress.speaking() if self._kept is None else nullcontext()

    def say(self, text: str) -> None:
        """See :meth:`Progress.say`."""
        self._pass_on(lambda: self._progress.say(text))

    def build(self, progress: BuildProgress) -> None:
        """See :meth:`Progress.build`."""
        self._pass_on(lambda: self._progress.build(progress))

    def boot(self, event: BootEvent) -> None:
        """See :meth:`Progress.boot`."""
        self._pass_on(lambda: self._progress.boot(event))

    def hush(self) -> None:
        """See :meth:`Progress.hush`."""
        self._progress.hush()

    def _pass_on(self, tell: Callable[[], None]) -> None:
        with self._lock:
            if self._kept is not None:
                self._kept.append(tell)
                return
        tell()


class _Watch:
    """One item that runs: when it is told of next, ever more seldom."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.state = ""
        self.began_s = time.monotonic()
        self.wait_s = LONG_S
        self.due_s = self.began_s + self.wait_s


class _Watcher:
    """Calls back when an item has run for long; one thread for all items, which an item neither starts
    nor wakes.
    """

    def __init__(self, tell: _Tell) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._watch: _Watch | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, watch: _Watch) -> None:
        with self._lock:
            self._watch = watch
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="nixos-watch")
            self._thread.start()

    def end(self) -> None:
        """Tell nothing more of the item."""
        with self._lock:
            self._watch = None

    def close(self) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        # No item is told of sooner than LONG_S after its begin, so none is overslept.
        pause_s = LONG_S
        while not self._closed.wait(pause_s):
            with self._lock:
                pause_s = LONG_S if self._watch is None else self._told(self._watch)

    def _told(self, watch: _Watch) -> float:
        """Tell of an item if it is time, and return how long nothing is to be told."""
        now_s = time.monotonic()
        if now_s >= watch.due_s:
            self._tell(watch, now_s - watch.began_s)
            watch.wait_s = min(2 * watch.wait_s, _SELDOM_S)
            watch.due_s = now_s + watch.wait_s
        # Another item may begin meanwhile.
        return min(LONG_S, max(watch.due_s - now_s, 0.01))


class _Tell(Protocol):
    def __call__(self, watch: _Watch, seconds: float, /) -> None: ...


def _line(text: str) -> str:
    return f"nixos: {printable(text)}"[:_MOST_LENGTH]


def _copy_of(stream: IO[str]) -> IO[str] | None:
    """Open the file behind `stream` once more, before pytest captures it; ``None`` if there is
    none.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.fdopen(os.dup(stream.fileno()), "w", encoding="utf-8", errors="replace")
    return None
