"""What is raised where a host's own failure keeps an item from being judged: an error, never a violated control."""

from __future__ import annotations

import pytest

from pytest_nixos.errors import BootError, BuildError, EvalError, FlakeError, NixosError

__all__ = ["HostFailure", "NotJudged", "why_not_judged"]

# pytest.fail() inside an except block would show the error twice; raised as an exception it is shown once, without a traceback.
_Failed = type(pytest.fail.Exception("", pytrace=False))


class HostFailure(_Failed):  # type: ignore[valid-type, misc]  # pytest gives the class as a value
    """Shows the failure of a host in full, once."""

    def __init__(self, error: NixosError) -> None:
        super().__init__(str(error), pytrace=False)


class NotJudged(_Failed):  # type: ignore[valid-type, misc]  # as above
    """Says of a later item of the same host, in a few words, why it is not judged."""

    def __init__(self, error: NixosError) -> None:
        super().__init__(f"not judged: {why_not_judged(error)}", pytrace=False)


def why_not_judged(error: NixosError) -> str:
    """Return the failure of a host in a few words."""
    match error:
        case EvalError() | FlakeError():
            return "the host does not evaluate"
        case BuildError():
            return "the host does not build"
        case BootError():
            return "the machine did not boot"
        case _:
            return "the machine went away or cannot be used"
