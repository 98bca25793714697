"""Answers that each question gets once, however many threads ask."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

__all__ = ["AskedOnce"]


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
