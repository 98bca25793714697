"""What a failed build means to the user: the derivation that failed first, why, and the end of
its log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_nixos.errors import BuildError
from pytest_nixos.nix.command.log import NixLog, derivation_name
from pytest_nixos.nix.failure.derivation import first_failed, said_last, what_to_do, why_failed
from pytest_nixos.nix.failure.evaluation import by_hand, killed, own_words, recognised
from pytest_nixos.nix.failure.known import FOREIGN_SYSTEM, MACHINE_FAILURES

__all__ = ["build_failure"]

_SHOWN_LINES = 15


def build_failure(
    derivation: str, log: NixLog, exit_status: int, *, read_log: Callable[[str], Sequence[str]]
) -> BuildError:
    """Explain why a build failed, with the end of the log of the derivation that failed first.

    :param derivation: what was to be built.
    :param read_log: gives the last lines of a derivation's log from the store.
    """
    known = recognised(
        derivation_name(derivation), log, (*MACHINE_FAILURES, FOREIGN_SYSTEM), _build_error
    )
    if isinstance(known, BuildError):
        return known
    failed = first_failed(log.errors)
    if exit_status < 0 and not failed:
        return BuildError(
            f"{derivation_name(derivation)}: {killed(exit_status)} during the build",
            remedy="see who ended it (the kernel's log tells about lack of memory) and run again",
        )
    if not failed:
        return BuildError(
            f"{derivation_name(derivation)}: Nix could not build it: {own_words(log, exit_status)}",
            remedy=f"see what this says: {by_hand('build', '--no-link', f'{derivation}^*')}",
            derivation=derivation,
            log_tail=tuple(log.plain)[-_SHOWN_LINES:],
        )
    tail = (log.log_tail(failed) or tuple(read_log(failed)))[-_SHOWN_LINES:]
    said = said_last(tail)
    return BuildError(
        f"{derivation_name(failed)} failed to build ({failed}): {why_failed(log.errors, failed)}"
        + (f"; {said}" if said else ""),
        remedy=what_to_do(tail, by_hand("log", failed)),
        derivation=failed,
        log_tail=tail,
    )


def _build_error(message: str, *, remedy: str, detail: str) -> BuildError:
    return BuildError(message, remedy=remedy, log_tail=detail.splitlines()[-_SHOWN_LINES:])
