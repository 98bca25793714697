"""What every started machine has, whatever runs it: a console, a process, an end that is
explained, and traces to remove.

A backend's own class holds one :class:`Lifetime` and adds what only that backend knows.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from pytest_nixos.errors import BootError, MachineError, NixosError, TransportError
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.boot.events import BootEventKind
from pytest_nixos.machine.boot.failure import (
    Ended,
    ended_error,
    explained,
    fatal_error,
    gone_error,
    late_error,
)
from pytest_nixos.machine.boot.internet import NoWayOut
from pytest_nixos.machine.boot.looks import Signs
from pytest_nixos.machine.boot.news import BootNews
from pytest_nixos.machine.boot.remedies import Remedies
from pytest_nixos.machine.boot.settle import SettleLimits, settle
from pytest_nixos.machine.boot_signs import BootPhase
from pytest_nixos.machine.command import ExplainedTransport, Transport

__all__ = ["Lifetime", "RunningProcess"]

# What a channel's end precedes: the process is reaped a moment later, with its last words.
_END_S = 0.5
# After a fatal line the guest goes on for a moment: a panic's trace, stage 1's question.
_QUIET_S = 0.5
_LAST_WORDS_S = 2.0
_ORDER_LIMIT_S = 20.0
_INTERVAL_S = 0.05


class RunningProcess(Ended, Protocol):
    """The process of this machine that a guest lives in: QEMU, systemd-nspawn, an ssh client."""

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        ...

    def wait_ended(self, limit_s: float) -> bool:
        """Wait for its end, at most `limit_s` seconds; return whether it came."""
        ...


class Lifetime:
    """From a machine's start to the removal of its last trace.

    :param name: name of the host, for messages.
    :param news: its console and who listens to its boot.
    :param program: what runs it, as messages call it: ``QEMU``.
    :param remedies: what to advise where it goes wrong.
    :param deadly: kinds of trouble that end also a machine that had come up; others are then a
        test's own doing.
    :param no_way_out: what tells units that need the internet, ``None`` where the guest reaches it.
    """

    def __init__(
        self,
        name: str,
        news: BootNews,
        *,
        program: str,
        remedies: Remedies,
        deadly: frozenset[str] = frozenset(),
        no_way_out: NoWayOut | None = None,
    ) -> None:
        self.name = name
        self.news = news
        self.console = news.console
        self.undo = contextlib.ExitStack()
        self.has_come_up = False
        self._program = program
        self._remedies = remedies
        self._deadly = deadly
        self._no_way_out = no_way_out
        self._process: RunningProcess | None = None
        self._is_gone: Callable[[], bool] = lambda: False

    def follow(
        self, process: RunningProcess, *, is_gone: Callable[[], bool] = lambda: False
    ) -> None:
        """Take `process` for what the machine lives in, from now on; it has not come up yet.

        :param is_gone: tells an end that the process itself shows only later (process 1 of a
            container).
        """
        self._process = process
        self._is_gone = is_gone
        self.has_come_up = False

    @property
    def has_ended(self) -> bool:
        """Whether the machine is over, as this machine sees it."""
        return self._process is None or self._process.has_ended or self._is_gone()

    @contextlib.contextmanager
    def stopped_on_error(self) -> Iterator[None]:
        """Remove everything if the block fails: nothing of a machine that did not start is left."""
        try:
            yield
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Undo what was noted in :attr:`undo`, last first; never raises, safe to call twice."""
        try:
            self.undo.close()
        except (OSError, NixosError) as err:
            self.console.append(f"pytest-nixos: while stopping {self.name}: {err}")

    def check(self) -> None:
        """Raise at once if the machine ended or its boot cannot succeed any more.

        :raises BootError: during a boot.
        :raises TransportError: of a machine that had come up.
        """
        if self.has_come_up:
            gone = self.obituary()
            if gone is not None:
                raise gone
            return
        trouble = self.console.fatal_trouble
        if trouble is not None:
            self._await_last_words()
            raise fatal_error(self.name, self.console, trouble, self._remedies)
        if self._process is not None and self.has_ended:
            self._process.wait_ended(_END_S)
            raise ended_error(self.name, self.console, self._program, self._process, self._remedies)

    def obituary(self, *, wait_s: float = 0.0) -> TransportError | None:
        """Say why a machine that had come up is gone, ``None`` while it lives.

        :param wait_s: seconds to wait for its end, which comes after that of its channel.
        """
        process = self._process
        if process is not None and not self.has_ended:
            process.wait_ended(wait_s)
        troubles = [t for t in tuple(self.console.troubles) if t.fatal and t.kind in self._deadly]
        if process is None or not (self.has_ended or troubles):
            return None
        if self.has_ended:
            process.wait_ended(_END_S)
            how = f"{self._program} ended {process.end_words}"
        else:
            how = "the machine broke"
        cause = f" ({troubles[0].kind}: {troubles[0].text})" if troubles else ""
        kinds = (*(t.kind for t in troubles), f"{self._program} {process.end_kind}")
        return gone_error(self.name, self.console, f"{how}{cause}", self._remedies, *kinds)

    def explain(self, channel: Transport) -> ExplainedTransport:
        """Return a transport whose errors tell the machine's end where that is what broke it."""
        return ExplainedTransport(
            channel, lambda: self.obituary(wait_s=_END_S) if self.has_come_up else None
        )

    def explained(self, deadline: Deadline, what: str) -> contextlib.AbstractContextManager[None]:
        """Turn a broken or silent channel during a boot into the boot error that caused it.

        :param what: what did not come: ``no answer from the root command channel``.
        """
        return explained(
            self.name,
            self.console,
            what,
            deadline,
            ended=lambda: self._process is not None and self._process.wait_ended(_END_S),
            check=self.check,
            remedies=self._remedies,
        )

    def late(self, what: str, deadline: Deadline) -> BootError:
        """Explain that something did not come in time though the machine lives."""
        return late_error(self.name, self.console, what, deadline.limit_s, self._remedies)

    def answers(self) -> None:
        """Tell that the root command channel answers."""
        self.news.tell(BootEventKind.CHANNEL, "the root command channel answers")

    def settle(
        self,
        transport: Transport,
        limits: SettleLimits,
        *,
        deadline: Deadline,
        has_sign: Callable[[], bool] | None = None,
    ) -> None:
        """Wait until the boot has settled; see :func:`pytest_nixos.machine.boot.settle.settle`.

        :param has_sign: of the boot's end; a login prompt on the console if ``None``.
        """
        with self.explained(deadline, "the boot did not settle"):
            settle(
                transport,
                machine=self.name,
                deadline=deadline,
                limits=limits,
                tell=self.news.tell,
                check=self.check,
                no_way_out=self._no_way_out,
                signs=Signs(
                    has_ended=has_sign or self._has_prompt, still_s=lambda: self.console.still_s
                ),
            )

    def _has_prompt(self) -> bool:
        return self.console.phase is BootPhase.LOGIN

    def shut_down(self, transport: Transport, *, deadline: Deadline) -> None:
        """Order a shutdown and wait for the machine's end; the channel may break before it has
        answered.

        :raises MachineError: if it still runs at `deadline`.
        """
        with contextlib.suppress(TransportError):
            transport.run("systemctl poweroff --no-block", deadline=deadline.within(_ORDER_LIMIT_S))
        ended = poll(lambda: self.has_ended or None, deadline=deadline, interval_s=_INTERVAL_S)
        if ended is None:
            raise MachineError(
                f"{self.name}: still runs {deadline.limit_s:g} s after it was told to shut down",
                remedy="read the console for the unit that does not stop; crash() cuts the power",
            )

    def _await_last_words(self) -> None:
        deadline = Deadline.after(_LAST_WORDS_S)
        while not deadline.expired and not self.has_ended:
            if self.console.quiet_s >= _QUIET_S:
                return
            time.sleep(_INTERVAL_S)
