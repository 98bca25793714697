"""Answers that each question gets once, however many threads ask, and one that is asked for before
anybody wants it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

__all__ = ["AskedAhead", "AskedOnce"]

_Answer = TypeVar("_Answer")


class AskedOnce:
    """Answers by question. Who asks while another thread does waits for it; a copy in another process
    has the answers, and nobody asks there yet.

    :param answers: those that are known.
    """

    def __init__(self, answers: Mapping[str, str] | None = None) -> None:
        self._answers = dict(answers or {})
        self._turn = threading.Lock()

    def __reduce__(self) -> tuple[type[AskedOnce], tuple[dict[str, str]]]:
        return AskedOnce, (dict(self._answers),)

    def of(self, question: str, ask: Callable[[], str]) -> str:
        """Return the answer to a question, from `ask` where there is none; what it raises is no
        answer.
        """
        with self._turn:
            if question not in self._answers:
                self._answers[question] = ask()
            return self._answers[question]


class AskedAhead(Generic[_Answer]):
    """The answer to a question that a thread asks beside what follows.

    :param ask: the question; called at once.
    """

    def __init__(self, ask: Callable[[], _Answer]) -> None:
        self._ask = ask
        self._answer: _Answer
        self._error: BaseException | None = None
        self._over = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="nixos-asked-ahead").start()

    def take(self) -> _Answer:
        """Wait for the answer; raise what asking for it raised."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._answer

    def wait(self) -> None:
        """Wait until nothing is asked any more, whatever came of it."""
        self._over.wait()

    def _run(self) -> None:
        try:
            self._answer = self._ask()
        except BaseException as err:  # noqa: BLE001 - raised again in take()
            self._error = err
        finally:
            self._over.set()
