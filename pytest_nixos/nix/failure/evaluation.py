"""What Nix's own failures mean to the user: each becomes one error with a remedy."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from pytest_nixos.errors import EvalError, FlakeError, NixosError, Unanswerable
from pytest_nixos.nix.command.argv import NixSettings, flake_options
from pytest_nixos.nix.command.log import NixLog, NixMessage, derivation_name
from pytest_nixos.nix.command.refs import FileRef, FlakeRef, HomesRef, HostRef, NixosTestRef
from pytest_nixos.nix.config.places import Places
from pytest_nixos.nix.failure.absent import output_of
from pytest_nixos.nix.failure.derivation import first_failed, what_to_do, why_failed
from pytest_nixos.nix.failure.known import (
    FLAKE_FAILURES,
    FOREIGN_SYSTEM,
    MACHINE_FAILURES,
    NO_CHANNEL,
    NO_HOSTS,
    OF_A_FILE,
    PACKAGES,
    PURE,
    UNREACHABLE,
    Known,
)
from pytest_nixos.nix.failure.owners import Circumstances, owners_reason

__all__ = [
    "Circumstances",
    "EvalInterrupted",
    "ImageRefused",
    "NoHosts",
    "by_hand",
    "evaluation_failure",
    "flake_failure",
    "killed",
    "none_evaluates",
    "not_a_machine",
    "own_words",
    "recognised",
]

_SHOWN_REASONS = 5
_SHOWN_LINES = 5


# Up to 2.8 Nix collects garbage while it filters a source, and then reads the wrong stack: how much memory it took so far decides.
_CRASHED = (
    "it crashed: use a newer Nix (up to 2.8 it does where a source is filtered), or keep it from collecting garbage:"
    " GC_INITIAL_HEAP_SIZE=8G in the environment"
)


class EvalInterrupted(EvalError):
    """An evaluation did not come to an end: killed, or out of time."""


class NoHosts(FlakeError):
    """A flake without the output that holds what was asked for."""


class ImageRefused(EvalError):
    """A host that is made into a medium (an ISO image, an installer), which nobody asked for by
    name.

    :param kind: what it is, with its article.
    """

    def __init__(self, host: HostRef, kind: str) -> None:
        super().__init__(
            f"{host}: it is {kind}, no machine that stays",
            remedy=f"to test it, name it: {_named(host)}",
        )
        self.kind = kind


def flake_failure(
    ref: FlakeRef, log: NixLog, exit_status: int, around: Circumstances | None = None
) -> NixosError:
    """Explain why a flake cannot be found, fetched or locked."""
    around = around or Circumstances()
    known = (
        recognised(str(ref), log, MACHINE_FAILURES, FlakeError)
        or owners_reason(str(ref), ref, log, around)
        or recognised(str(ref), log, FLAKE_FAILURES, FlakeError)
    )
    if known is not None:
        return known
    command = by_hand(
        "flake", "metadata", *flake_options(around.settings), str(ref), settings=around.settings
    )
    return FlakeError(
        f"{ref}: Nix cannot read this flake: {own_words(log, exit_status)}",
        remedy=f"see what this says: {command}",
        detail=log.whole,
    )


def evaluation_failure(
    host: HostRef, log: NixLog, exit_status: int, around: Circumstances | None = None
) -> NixosError:
    """Explain why a host cannot be evaluated, in the words of the host's author.

    :param host: with an empty name it stands for the flake's hosts as a whole.
    """
    around = around or Circumstances()
    subject, places = _subject(host), Places.of(around.metadata)
    out_of_memory = recognised(subject, log, MACHINE_FAILURES, EvalInterrupted)
    if exit_status < 0 and out_of_memory is None:
        return EvalInterrupted(
            f"{subject}: {killed(exit_status)} during evaluation",
            remedy=_CRASHED
            if exit_status == -signal.SIGSEGV
            else "give the machine more memory (a host takes 1 to 8 GiB), or see who ended it",
            detail=log.whole,
        )
    known = (
        recognised(str(host.flake), log, (NO_HOSTS,), NoHosts)
        or recognised(str(host.flake), log, OF_A_FILE, FlakeError)
        or out_of_memory
        or owners_reason(subject, host.flake, log, around)
        or recognised(
            subject, log, (*PACKAGES, FOREIGN_SYSTEM, PURE, _no_channel(around.settings)), EvalError
        )
        or _import_failed(subject, log, places)
        or recognised(subject, log, (UNREACHABLE,), FlakeError)
    )
    if known is not None:
        return type(known)(
            places.shorten(known.message), remedy=places.shorten(known.remedy), detail=known.detail
        )
    message = log.errors[-1] if log.errors else None
    place = _place(message, places) if message is not None else ""
    words = places.shorten(own_words(log, exit_status))
    return EvalError(
        f"{subject}: Nix cannot evaluate this{f' (at {place})' if place else ''}: {words}",
        remedy="correct the configuration until this works; -v shows the whole trace:\n"
        f"    {_evaluated_by_hand(host, around.settings)}",
        detail=log.whole,
    )


def _import_failed(subject: str, log: NixLog, places: Places) -> EvalError | None:
    """Return the error of a host that needs a derivation built while it is evaluated, which failed."""
    failed = first_failed(log.errors)
    if not failed:
        return None
    place, tail = _place(log.errors[-1], places), log.log_tail(failed)[-_SHOWN_LINES:]
    return EvalError(
        f"{subject}: it imports from a derivation{f' (at {place})' if place else ''}, and for that"
        f" {derivation_name(failed)} ({failed}) does not build: {why_failed(log.errors, failed)}"
        + "".join(f"\n  | {line}" for line in tail),
        remedy=what_to_do(tail, by_hand("log", failed)),
        detail=log.whole,
    )


def _no_channel(settings: NixSettings) -> Known:
    """Return the failure that a channel is not there, told with where Nix looked."""
    looked = dict(settings.nix_options).get("nix-path", os.environ.get("NIX_PATH", ""))
    if not looked:
        return NO_CHANNEL
    told = looked.replace("{", "{{").replace("}", "}}")
    return replace(NO_CHANNEL, says=f"{NO_CHANNEL.says}, which is {told!r}")


def _place(message: NixMessage, places: Places) -> str:
    """Return the user's own place that is nearest to what went wrong, else where Nix points."""
    found = places.input_of(message.place.partition(":")[0])
    if found is not None and not found[0]:
        return places.told(message.place)
    return places.nearest(message.whole) or places.told(message.place)


def _evaluated_by_hand(host: HostRef, settings: NixSettings) -> str:
    if isinstance(host.flake, FileRef):
        words = (
            host.flake.by_hand(host.attr, "config.system.build.toplevel")
            if host.attr
            else ("--eval", str(host.flake))
        )
        options = [word for pair in settings.nix_options for word in ("--option", *pair)]
        return shlex.join(("nix-instantiate", "--show-trace", *options, *words))
    made = "home.activationPackage" if isinstance(host.flake, HomesRef) else "system.build.toplevel"
    attribute = f"{host.flake}#{host.config}.{made}.drvPath"
    return by_hand(
        "eval",
        *flake_options(settings),
        *(("--impure",) if settings.impure else ()),
        "--show-trace",
        attribute if host.attr else f"{host.flake}#{output_of(host.flake)}",
        *(() if host.attr else ("--apply", "builtins.attrNames")),
        settings=settings,
    )


def by_hand(*words: str, settings: NixSettings | None = None) -> str:
    """Return a command of Nix as one types it into a shell."""
    options = [
        word for pair in (settings or NixSettings()).nix_options for word in ("--option", *pair)
    ]
    features = ("--extra-experimental-features", "nix-command flakes")
    program = (settings or NixSettings()).program
    return shlex.join((program, *features, *words, *options))


def none_evaluates(failures: Sequence[NixosError]) -> NixosError:
    """Tell why no host of a run evaluates: one failure as it is, several with each reason once.

    :param failures: at least one.
    """
    told = {_reason(failure): failure for failure in reversed(failures)}
    first, *others = reversed(told.values())
    if not others:
        return first
    reasons = [*map(str, (first, *others[: _SHOWN_REASONS - 1]))]
    more = len(others) + 1 - len(reasons)
    if more > 0:
        reasons.append(f"and {more} more")
    return EvalError(
        "no host evaluates:\n" + "\n".join(reasons),
        remedy="mend one, or leave out with --nixos-flake REF#HOST what cannot be; the other hosts are then judged",
        detail="\n".join(failure.detail for failure in (first, *others) if failure.detail),
    )


def _reason(failure: NixosError) -> str:
    """Return what happened without the host that it happened to."""
    return failure.message.partition(": ")[2] or failure.message


def not_a_machine(host: HostRef, problem: str) -> NixosError:
    """Say why an entry of ``nixosConfigurations`` cannot be made into a machine."""
    says, remedy = {
        "no-config": (
            "this entry is not a NixOS system: it has no `config`",
            "make it with nixpkgs.lib.nixosSystem",
        ),
        "no-extend-modules": (
            "this entry has no `extendModules`, so nothing can be added to it",
            "make it with nixpkgs.lib.nixosSystem of NixOS 22.05 or later and pass its result on unchanged",
        ),
        "no-vm-variant": (
            "its nixpkgs has no option virtualisation.vmVariant",
            "use NixOS 22.05 or later, or --nixos-backend container",
        ),
        "no-kernel": (
            "it has no kernel or no initrd that a VM could start (boot.kernel.enable, boot.initrd.enable), as systems for WSL",
            "leave out --nixos-backend, or name container",
        ),
        "no-home": (
            "this entry is not a home of home-manager: it has no `activationPackage` or no `pkgs`",
            "make it with home-manager.lib.homeManagerConfiguration of release 21.11 or later",
        ),
        "home-elsewhere": (
            "this home is for another kind of system than Linux, which no NixOS machine can carry",
            "name a home whose `pkgs` are of x86_64-linux or aarch64-linux",
        ),
        "image-and-own-disks": (
            "its VM variant starts from an image by a boot loader (virtualisation.useBootLoader), which has no other disk",
            "leave out --nixos-disks declared, or useBootLoader in virtualisation.vmVariant.virtualisation",
        ),
        "test-container": (
            "it is a container of its test, which only the test's own driver starts",
            "name the test's VMs, as in --nixos-test TEST.nodes.NAME, or declare it under `nodes`",
        ),
        "test-node": (
            "a node of a NixOS test is the VM that the test starts, and cannot be made into anything else",
            "leave --nixos-backend and generations to hosts of nixosConfigurations",
        ),
    }[problem]
    # Of a node there is an answer to other questions: what asks this one is not applicable.
    kind = Unanswerable if problem == "test-node" else EvalError
    return kind(f"{host}: {says}", remedy=remedy)


def recognised(
    ref: str, log: NixLog, failures: Sequence[Known], make: Callable[..., NixosError]
) -> NixosError | None:
    """Return the first of some known failures that the words of Nix show."""
    text = "\n".join([*(error.text for error in log.errors), *log.plain])
    for failure in failures:
        error = failure.error(text, ref, make, log.whole)
        if error is not None:
            return error
    return None


def own_words(log: NixLog, exit_status: int) -> str:
    """Return what Nix gave as the reason, or how it ended."""
    if log.errors:
        return log.errors[-1].text
    if exit_status < 0:
        return killed(exit_status)
    last = [line for line in log.plain if line.strip()][-1:]
    return last[0].strip() if last else f"exit status {exit_status} without a message"


def killed(exit_status: int) -> str:
    """Say which signal ended Nix.

    :param exit_status: below zero, as ``subprocess`` gives it.
    """
    try:
        name = signal.Signals(-exit_status).name
    except ValueError:
        name = f"signal {-exit_status}"
    return f"nix was ended by {name}"


def _named(host: HostRef) -> str:
    """Return the options that select a host, as one types them."""
    if isinstance(host.flake, FileRef):
        return f"--nixos-file={host}"
    if isinstance(host.flake, NixosTestRef):
        return f"--nixos-test {shlex.quote(str(host))}"
    return f"--nixos-flake {shlex.quote(str(host))}"


def _subject(host: HostRef) -> str:
    return str(host) if host.attr else str(host.flake)
