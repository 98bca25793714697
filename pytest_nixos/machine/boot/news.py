"""Tells a listener what a console shows: phases reached and troubles met, each once."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_nixos.machine.boot.events import BootEvent, BootEventKind, BootListener
from pytest_nixos.machine.boot_signs import BootPhase
from pytest_nixos.machine.console import Console, ConsoleLine

__all__ = ["BootNews"]


class BootNews:
    """A machine's console together with the listener of its boot.

    :param machine: name of the host.
    """

    def __init__(self, machine: str, listener: BootListener) -> None:
        self.console = Console(listener=self._on_line)
        self._machine = machine
        self._listener = listener
        self._phase = BootPhase.STARTED
        self._troubles = 0

    def resume(self, lines: Sequence[ConsoleLine]) -> None:
        """Begin with the console of the machine that this one is a clone of; it is no news."""
        self.console.resume(lines)
        self._phase = self.console.phase
        self._troubles = len(self.console.troubles)

    def tell(self, kind: BootEventKind, text: str) -> None:
        """Tell one piece of news."""
        self._listener(
            BootEvent(kind=kind, machine=self._machine, at_s=self.console.elapsed_s, text=text)
        )

    def _on_line(self, _line: ConsoleLine) -> None:
        console = self.console
        if console.phase > self._phase:
            self._phase = console.phase
            self.tell(BootEventKind.PHASE, self._phase.words)
        new = console.troubles[self._troubles :]
        self._troubles += len(new)
        for trouble in new:
            # A unit that holds up the boot may merely be slow: its limit tells.
            words = "the boot waits for" if trouble.kind == "stuck unit" else f"{trouble.kind}:"
            self.tell(BootEventKind.TROUBLE, f"{words} {trouble.text}")
