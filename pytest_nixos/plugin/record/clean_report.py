"""What a report carries to the terminal and to JUnit, without what a guest put into it to be
acted upon.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _pytest._code.code import (
    ExceptionChainRepr,
    ExceptionRepr,
    ReprEntry,
    ReprEntryNative,
    ReprTraceback,
)

from pytest_nixos.local.text import printable, printable_lines, without_escapes

__all__ = ["clean_report"]


def clean_report(report: pytest.TestReport) -> None:
    """Make the failure, skip reason, captured output and properties of an item of a host printable.

    pytest escapes what its own traceback formatter writes with ``repr()``; messages, console tails
    and captured output it takes as they are, and JUnit escapes only what XML forbids.
    """
    report.sections = [(name, _shown(text)) for name, text in report.sections]
    report.user_properties = [
        (name, printable_lines(value) if isinstance(value, str) else value)
        for name, value in report.user_properties
    ]
    failure = report.longrepr
    if isinstance(failure, str):
        report.longrepr = printable_lines(failure)
    elif isinstance(failure, tuple):
        path, line, reason = failure
        report.longrepr = (path, line, printable_lines(reason))
    elif isinstance(failure, ExceptionRepr):
        _clean_exception(failure)
    if hasattr(report, "wasxfail"):
        report.wasxfail = printable(report.wasxfail)


def _clean_exception(failure: ExceptionRepr) -> None:
    if failure.reprcrash is not None:
        failure.reprcrash.message = printable_lines(failure.reprcrash.message)
    failure.sections = [(name, _shown(text), mark) for name, text, mark in failure.sections]
    for traceback in _tracebacks(failure):
        for entry in traceback.reprentries:
            if isinstance(entry, ReprEntry | ReprEntryNative):
                entry.lines = [printable_lines(line) for line in entry.lines]


def _tracebacks(failure: ExceptionRepr) -> Iterator[ReprTraceback]:
    yield failure.reprtraceback
    if isinstance(failure, ExceptionChainRepr):
        for traceback, _crash, _text in failure.chain:
            yield traceback


def _shown(text: str) -> str:
    """Drop colours, as a log handler or a program that a test ran may write them, and show the
    rest of what is no text.
    """
    return printable_lines(without_escapes(text) if "\x1b[" in text else text)
