"""Tells people what a long step is doing: one moving line on a terminal, plain lines in CI."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import pytest

from pytest_nixos.local.text import printable
from pytest_nixos.machine.boot.events import BootEvent, BootEventKind
from pytest_nixos.nix.log import BuildProgress, describe

__all__ = ["Narrator"]

_PLAIN_INTERVAL_S = 15.0
_LIVE_INTERVAL_S = 0.1


class _Terminal(Protocol):
    @property
    def isatty(self) -> bool: ...
    def write_line(self, line: str, **markup: bool) -> None: ...
    def rewrite(self, line: str, **markup: bool) -> None: ...


class Narrator:
    """Writes progress past pytest's capture; silent where there is no terminal reporter (xdist workers).

    Safe to call from any thread between entering and leaving :meth:`speaking`; quiet outside of it.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._speaking = False
        self._last_at_s = float("-inf")
        self._live_line = False
        self._told_of_kvm = False

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Switch pytest's output capture off while a long step runs."""
        with self._capture_disabled():
            self._speaking = self._terminal is not None
            try:
                yield
            finally:
                self._clear_live_line()
                self._speaking = False

    def say(self, text: str) -> None:
        """Write one line that stays."""
        with self._lock:
            self._clear_live_line()
            self._write(f"nixos: {printable(text)}")

    def tell(self, text: str) -> None:
        """Show a state from within a test, whose output pytest captures."""
        with self.speaking():
            self.moving(text)

    def build(self, progress: BuildProgress) -> None:
        """Show how far Nix has come; a :data:`pytest_nixos.nix.log.ProgressSink`."""
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

    def moving(self, text: str) -> None:
        """Show a state that the next one replaces: at once on a terminal, every 15 s in CI."""
        terminal = self._terminal
        if not self._speaking or terminal is None:
            return
        with self._lock:
            interval_s = _LIVE_INTERVAL_S if terminal.isatty else _PLAIN_INTERVAL_S
            if time.monotonic() - self._last_at_s < interval_s:
                return
            self._last_at_s = time.monotonic()
            if terminal.isatty:
                terminal.rewrite(f"nixos: {printable(text)}"[:200], erase=True)
                self._live_line = True
            else:
                self._write(f"nixos: {printable(text)}")

    @property
    def _terminal(self) -> _Terminal | None:
        return self._config.pluginmanager.get_plugin("terminalreporter")

    def _write(self, text: str) -> None:
        terminal = self._terminal
        if self._speaking and terminal is not None:
            terminal.write_line(text)

    def _clear_live_line(self) -> None:
        terminal = self._terminal
        if self._live_line and terminal is not None:
            terminal.rewrite("", erase=True)
            self._live_line = False

    def _capture_disabled(self) -> AbstractContextManager[None]:
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        return nullcontext() if capture is None else capture.global_and_fixture_disabled()
