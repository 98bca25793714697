"""Turn what a console tells into one error that names the cause and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from pytest_nixos.errors import BootError, TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.boot.remedies import Remedies
from pytest_nixos.machine.boot_signs import BootPhase, Trouble
from pytest_nixos.machine.console import Console

__all__ = ["Ended", "ended_error", "explained", "fatal_error", "gone_error", "late_error"]

_TAIL = 40
_SHORT_TAIL = 20
_MOST_TROUBLES = 5
_SHELLS = frozenset({"emergency mode", "rescue mode"})
_NEEDED = frozenset(
    {
        "device not found",
        "file system check failed",
        "mount failed",
        "unit failed",
        "unit timed out",
    }
)


class Ended(Protocol):
    """A process that ran a machine, and how it ended."""

    @property
    def end_words(self) -> str:
        """For a message: ``with exit status 1``."""
        ...

    @property
    def end_kind(self) -> str:
        """The sort of end, in words that follow the program's name: ``was killed``."""
        ...


def fatal_error(name: str, console: Console, trouble: Trouble, remedies: Remedies) -> BootError:
    """Explain a boot that cannot succeed any more, by what led to it where the console tells."""
    earlier = [t for t in _others(console) if t.kind != trouble.kind]
    cause = _led_to(trouble, earlier, console.phase)
    told = trouble.text if cause is None else f"{cause.kind}: {cause.text}"
    return BootError(
        f"{name}: {trouble.kind} {_where(console)}: {told}{_listed([t for t in earlier if t is not cause])}",
        remedy=remedies.choose(trouble.kind, *(t.kind for t in earlier)),
        state=trouble.kind,
        console_tail=console.tail(_TAIL),
    )


def ended_error(
    name: str, console: Console, program: str, ended: Ended, remedies: Remedies
) -> BootError:
    """Explain a machine whose process ended before its root command channel answered.

    :param program: what ran it, as messages call it: ``QEMU``.
    """
    fatal = console.fatal_trouble
    if fatal is not None:
        return fatal_error(name, console, fatal, remedies)
    known = _others(console)
    cause = next((t for t in reversed(known) if remedies.known(t.kind)), None)
    kind = f"{program} {ended.end_kind}" if cause is None else cause.kind
    tail = console.tail(_TAIL)
    return BootError(
        f"{name}: {program} ended {ended.end_words} {_where(console)}{_listed(known)}",
        remedy=remedies.choose(kind, lines=tail),
        state=kind,
        console_tail=tail,
    )


def late_error(
    name: str, console: Console, what: str, limit_s: float, remedies: Remedies
) -> BootError:
    """Explain a machine that is still alive but was not ready in time."""
    job = console.slow_job
    waiting = f"; systemd reported last: {job.unit} ({job.limit_words})" if job else ""
    known = _others(console)
    return BootError(
        f"{name}: {what} after {limit_s:g} s; the boot stands {_where(console)}{waiting}{_listed(known)}",
        remedy=remedies.choose("stuck unit" if job else "", *(t.kind for t in known))
        + ", or raise --nixos-boot-timeout if the machine is only slow",
        state="stuck unit" if job else f"not ready {console.phase.where}",
        console_tail=console.tail(_TAIL),
    )


@contextlib.contextmanager
def explained(
    name: str,
    console: Console,
    what: str,
    deadline: Deadline,
    *,
    ended: Callable[[], object],
    check: Callable[[], None],
    remedies: Remedies,
) -> Iterator[None]:
    """Turn a broken or silent channel during a boot into the boot error that caused it.

    :param what: what did not come: ``no answer from the root command channel``.
    :param ended: waits a moment for the machine's end, which comes after that of its channel.
    :param check: raises if the machine ended or its boot cannot succeed any more.
    """
    try:
        yield
    except TransportError as err:
        ended()
        check()
        if deadline.expired:
            raise late_error(name, console, what, deadline.limit_s, remedies) from err
        raise BootError(
            f"{name}: {what}: {err.message}",
            remedy=err.remedy,
            state="channel broken",
            console_tail=console.tail(_TAIL),
        ) from err


def gone_error(
    name: str, console: Console, how: str, remedies: Remedies, *kinds: str
) -> TransportError:
    """Explain that a machine which had come up is gone.

    :param how: what happened to it: ``QEMU ended by signal 9``.
    :param kinds: troubles that it had, and the sort of its end.
    """
    lines = console.tail(_SHORT_TAIL)
    tail = "".join(f"\n  | {line}" for line in lines)
    advice = msgspec.structs.replace(remedies, default=remedies.gone).choose(*kinds, lines=lines)
    return TransportError(f"{name}: {how}; last console lines:{tail}", remedy=advice)


def _led_to(trouble: Trouble, earlier: Sequence[Trouble], phase: BootPhase) -> Trouble | None:
    """Return what made systemd start an emergency or a rescue shell, ``None`` where that is not sure.

    In stage 1 each unit is needed for the root; in stage 2 what failed may be one of many, and the guest
    can be asked.
    """
    if trouble.kind not in _SHELLS or phase is not BootPhase.STAGE_1:
        return None
    return next((t for t in earlier if t.kind in _NEEDED), None)


def _others(console: Console) -> list[Trouble]:
    """The troubles that did not end the boot, told apart by where they happened."""
    return [_located(t, console) for t in tuple(console.troubles) if not t.fatal]


def _located(trouble: Trouble, console: Console) -> Trouble:
    # Before the guest's first word only the run script's own programs (mkfs, qemu-img) can
    # complain.
    if trouble.kind == "no space left" and console.phase is BootPhase.STARTED:
        return Trouble(kind="host machine: disk full", text=trouble.text, fatal=False)
    return trouble


def _where(console: Console) -> str:
    return f"{console.phase.where}, {console.elapsed_s:.0f} s after its start"


def _listed(troubles: list[Trouble]) -> str:
    return "".join(f"\n  {t.kind}: {t.text}" for t in troubles[-_MOST_TROUBLES:])
