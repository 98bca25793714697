"""Exceptions that a user can see; each carries what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "BootError",
    "BrokenMachineError",
    "BuildError",
    "CatalogueError",
    "CommandTimeout",
    "EvalError",
    "FaultError",
    "FlakeError",
    "GenerationError",
    "MachineError",
    "NixosError",
    "NoAnswerError",
    "SettingsError",
    "ToolMissingError",
    "TransportError",
    "Unanswerable",
]


class NixosError(Exception):
    """Base of every error that this package raises on purpose.

    :param message: what happened, where, what was found and what was expected.
    :param remedy: what the user can do next, in the imperative.
    :param detail: longer material (a trace, a log tail) shown below the message with ``-v`` only.
    """

    def __init__(self, message: str, *, remedy: str, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only parameters defeat the default pickling; errors travel to xdist's workers.
        return _restored, (type(self), self.args, self.__dict__)


class SettingsError(NixosError):
    """An option, ini value, marker, host or control that the user named is wrong."""


class ToolMissingError(NixosError):
    """A program that the plugin needs is not on PATH."""


class FlakeError(NixosError):
    """A flake cannot be found, read or locked, or has no such host."""


class Unanswerable(NixosError):
    """A question about a flake that the source of a host has no answer to. A check that asks it is
    not applicable there.
    """


class EvalError(NixosError):
    """Nix refused to evaluate a host; ``detail`` holds the whole trace."""


class BuildError(NixosError):
    """A derivation failed to build.

    :param derivation: store path of the derivation that failed first, or ``""`` if Nix named none.
    :param log_tail: last lines of its build log.
    """

    def __init__(
        self, message: str, *, remedy: str, derivation: str = "", log_tail: Sequence[str] = ()
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.derivation = derivation
        self.log_tail = tuple(log_tail)

    def __str__(self) -> str:
        log = "".join(f"\n  | {line}" for line in self.log_tail)
        return f"{self.message}{log}\n  remedy: {self.remedy}"


class MachineError(NixosError):
    """A machine cannot be made, is in the wrong state for what was asked, or went away."""


class BootError(MachineError):
    """A machine did not come up.

    :param state: what the boot had reached, in words ("kernel panic", "emergency mode", ...).
    :param console_tail: last console lines before the end.
    """

    def __init__(
        self, message: str, *, remedy: str, state: str, console_tail: Sequence[str] = ()
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.state = state
        self.console_tail = tuple(console_tail)

    def __str__(self) -> str:
        console = "".join(f"\n  | {line}" for line in self.console_tail)
        return f"{self.message}{console}\n  remedy: {self.remedy}"


class FaultError(MachineError):
    """A fault cannot be brought about on this machine; the machine is as it was."""


class LoginRefused(MachineError):
    """A machine that answers does not let a user in."""


class BrokenMachineError(MachineError):
    """A machine is no longer what it was and cannot be judged any more."""


class GenerationError(NixosError):
    """A generation cannot be made, found or activated; the machine itself is fine."""


class TransportError(MachineError):
    """A command could not be carried to the guest or its answer could not be carried back."""


class NoAnswerError(TransportError):
    """The guest said nothing in time, not even that it killed a command: hung, or much too busy."""


class CommandTimeout(TransportError):
    """A guest command ran out of time and was killed; the channel stays usable.

    :param stdout: what the command had printed by then.
    :param stderr: the same for standard error.
    """

    def __init__(
        self, message: str, *, remedy: str, stdout: bytes = b"", stderr: bytes = b""
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.stdout = stdout
        self.stderr = stderr


class CatalogueError(NixosError):
    """A catalogue, profile or waiver file is malformed; the message names file, entry and field."""


def _restored(
    kind: type[NixosError], args: tuple[object, ...], state: dict[str, object]
) -> NixosError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error
