"""What is raised where a host's own failure keeps an item from being judged: an error, never a
violated control.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pytest_nixos.errors import (
    BootError,
    BuildError,
    EvalError,
    FlakeError,
    NixosError,
    SettingsError,
    ToolMissingError,
)
from pytest_nixos.local.memory import HostMemoryError
from pytest_nixos.plugin.session import HostEntry

__all__ = [
    "HostFailure",
    "NotJudged",
    "refuse_failed",
    "refuse_failed_rebooting",
    "shown_apart",
    "shown_once",
    "why_not_judged",
]

# pytest.fail() inside an except block would show the error twice; raised as an exception it is
# shown once, without a traceback.
_Failed = type(pytest.fail.Exception("", pytrace=False))


class HostFailure(_Failed):  # type: ignore[valid-type, misc]  # pytest gives the class as a value
    """Shows the failure of a host in full, once."""

    def __init__(self, error: NixosError) -> None:
        super().__init__(str(error), pytrace=False)


class NotJudged(_Failed):  # type: ignore[valid-type, misc]  # as above
    """Says of a later item of the same host, in a few words, why it is not judged."""

    def __init__(self, error: NixosError, *, machine: str = "") -> None:
        of = f" ({machine})" if machine else ""
        super().__init__(f"not judged: {why_not_judged(error)}{of}", pytrace=False)


@contextmanager
def shown_once(entry: HostEntry) -> Iterator[None]:
    """Remember what fails as the host's own failure, and show it in full; refuse at once where
    it has failed before.

    :raises HostFailure: in place of a :class:`NixosError`.
    :raises NotJudged: if the host's failure has been shown.
    """
    refuse_failed(entry)
    try:
        yield
    except NixosError as err:
        entry.fail(err)
        entry.shown = True
        raise HostFailure(err) from None


@contextmanager
def shown_apart(entry: HostEntry, *, reboots: bool) -> Iterator[None]:
    """Show what fails of a machine that is not the host's shared one, and leave the others alone.

    What does not build is nobody's machine. A machine that is made for reboots is tried once: it
    takes long to fail.

    :param reboots: whether it is such a machine.
    :raises HostFailure: in place of a :class:`NixosError`.
    :raises NotJudged: if the host's failure has been shown, or that of such a machine.
    """
    refuse_failed(entry)
    if reboots:
        refuse_failed_rebooting(entry)
    try:
        yield
    except NixosError as err:
        if reboots:
            entry.rebooting_failure = err
        elif isinstance(err, EvalError | FlakeError | BuildError):
            entry.fail(err)
            entry.shown = True
        raise HostFailure(err) from None


def refuse_failed(entry: HostEntry) -> None:
    """Give up on what needs a host whose failure has been shown.

    :raises NotJudged: then.
    """
    if entry.failure is not None and entry.shown:
        raise NotJudged(entry.failure)


def refuse_failed_rebooting(entry: HostEntry) -> None:
    """Give up on what needs a machine that is made for reboots, where that has failed.

    :raises NotJudged: then.
    """
    if entry.rebooting_failure is not None:
        raise NotJudged(entry.rebooting_failure, machine="the one for reboots")


def why_not_judged(error: NixosError) -> str:
    """Return the failure of a host in a few words."""
    match error:
        case EvalError() | FlakeError():
            return "the host does not evaluate"
        case BuildError():
            return "the host does not build"
        case BootError():
            return "the machine did not boot"
        case HostMemoryError():
            return "this machine has too little memory for it"
        case SettingsError() | ToolMissingError():
            return "the machine was not started"
        case _:
            return "the machine went away or cannot be used"
