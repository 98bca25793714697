"""What Nix's own failures mean to the user: each becomes one error with a remedy."""

from __future__ import annotations

import difflib
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_nixos.errors import BuildError, EvalError, FlakeError, NixosError
from pytest_nixos.nix.log import NixLog, NixMessage, derivation_name
from pytest_nixos.nix.refs import FlakeRef, HostRef

__all__ = [
    "EvalInterrupted",
    "build_failure",
    "evaluation_failure",
    "flake_failure",
    "no_such_host",
    "no_such_input",
    "not_a_machine",
]

_DERIVATION = re.compile(r"/nix/store/[0-9a-z]{32}-[^'\"\s^!]+?\.drv")
_SHOWN_NAMES = 20
_SHOWN_LINES = 15


class EvalInterrupted(EvalError):
    """An evaluation did not come to an end: killed, or out of time."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A failure that is told by its words.

    :param pattern: searched in the messages and in plain output, without colour.
    :param says: what happened, with ``{ref}`` and the pattern's groups.
    """

    pattern: re.Pattern[str]
    says: str
    remedy: str

    def error(
        self, text: str, ref: str, make: Callable[..., NixosError], detail: str
    ) -> NixosError | None:
        """Return the error if `text` shows this failure."""
        found = self.pattern.search(text)
        if found is None:
            return None
        groups = {name: value or "" for name, value in found.groupdict().items()}
        return make(
            self.says.format(ref=ref, **groups),
            remedy=self.remedy.format(ref=ref, **groups),
            detail=detail,
        )


def _known(pattern: str, says: str, remedy: str) -> _Known:
    """Return a known failure; a ``'`` of `pattern` stands for either quote, as Nix writes ``"`` from 2.34 on."""
    either = pattern.replace("[^'", "[^\0").replace("'", "['\"]").replace("\0", "'\"")
    return _Known(re.compile(either), says, remedy)


_MACHINE_FAILURES = (
    _known(
        r"No space left on device|database or disk is full",
        "{ref}: the disk is full; Nix could not write what it needs",
        "free space in /nix/store (nix-collect-garbage) and in the temporary directory",
    ),
    _known(
        r"cannot connect to (?:socket|daemon)|could not connect to any lix socket",
        "{ref}: the Nix daemon does not answer",
        "start it: systemctl start nix-daemon",
    ),
    _known(
        r"(?:creating directory|opening lock file|creating lock file|open)[^\n]*/nix/[^\n]*Permission denied",
        "{ref}: this user may not write the Nix store and no daemon does it",
        "install Nix for several users (with nix-daemon), or run as the user who owns /nix",
    ),
)

_NO_HOSTS = _known(
    r"does not provide attribute [^\n]*nixosConfigurations|attribute 'nixosConfigurations' missing",
    "{ref}: this flake has no nixosConfigurations",
    "name a flake that defines hosts as nixosConfigurations.NAME = nixpkgs.lib.nixosSystem {{ ... }}",
)

_UNREACHABLE = _known(
    r"(?i)could(?:n't| not) resolve host|unable to download|HTTP error|Connection timed out"
    r"|Failed to connect|Network is unreachable|timeout was reached|could not read from remote",
    "{ref}: this flake or one of its inputs cannot be fetched",
    "check the network and the name; an input can be replaced: --nixos-override-input NAME path:DIR",
)

_FOREIGN_SYSTEM = _known(
    r"a '(?P<system>[^']*)' with features .*? is required to build|Required system: '(?P<newer>[^']*)'",
    "{ref}: it must be built on {system}{newer}, and this machine is another",
    "name a remote builder in nix.conf, set boot.binfmt.emulatedSystems, or test this host on such a machine",
)

_FLAKE_FAILURES = (
    _known(
        r"could not find a flake\.nix file|does not contain a '(?:/)?flake\.nix'(?!, searching)"
        r"|Couldn't find flake\.nix|is not part of a flake",
        "{ref}: there is no flake.nix there, nor in a directory above it",
        "name the directory that holds flake.nix, for example --nixos-flake ./system#host",
    ),
    _known(
        r"-source/(?:[^\n']*/)?flake\.nix'?:? (?:does not exist|No such file or directory)"
        r"|flake\.nix'[^\n]*not tracked by Git",
        "{ref}: Git does not track flake.nix there, so Nix does not see it",
        "git add flake.nix (no commit is needed), or take the directory as it is with path:DIR",
    ),
    _known(
        r"(?:getting status of|path) '(?P<path>[^'\n]*)'?:? (?:No such file or directory|does not exist)"
        r"|(?:Git repository|repository) '(?P<repo>[^']*)' (?:does not exist|not found)",
        "{ref}: no such file or directory",
        "check the path; a flake ref is a directory, a URL such as github:OWNER/REPO, or a registry name",
    ),
    _known(
        r"cannot find flake '(?P<name>[^']*)' in the flake registries",
        "{ref}: no directory and no entry of the flake registry has this name",
        "write a path as ./DIR or /DIR, or see `nix registry list`",
    ),
    _known(
        r"does not appear to be a git repository|not a git repository"
        r"|revspec '[^']*' not found|fetching the input 'git\+",
        "{ref}: this Git repository or one of its revisions cannot be read",
        "check the URL, its `ref` and `rev`, and that the repository has a commit",
    ),
    _UNREACHABLE,
    _NO_HOSTS,
    _known(
        r"is not a valid URL",
        "{ref}: this Nix does not take such a flake ref",
        "move or link the flake to a path of plain letters; releases after 2.8 take blanks and others",
    ),
)

_PURE = _known(
    r"(?P<what>access to absolute path '[^']*' is forbidden in (?:pure|restricted)[^\n]*"
    r"|cannot (?:call|look up)[^\n]*pure evaluation[^\n]*"
    r"|[^\n]*pure (?:eval|evaluation) mode[^\n]*)",
    "{ref}: the host reads something outside its flake: {what}",
    "move it into the flake or an input of it, or allow it with --nixos-impure",
)

_UNTRACKED = _known(
    r"(?:getting status of|opening file|path) '/nix/store/[0-9a-z]{32}-source/(?P<path>[^'\n]*)'"
    r":? (?:No such file or directory|does not exist)",
    "{ref}: the flake's source has no {path}",
    "check the path; in a Git tree Nix sees tracked files only, so `git add` a new file",
)


def flake_failure(ref: FlakeRef, log: NixLog, exit_status: int) -> NixosError:
    """Explain why a flake cannot be found, fetched or locked."""
    known = _recognised(str(ref), log, (*_MACHINE_FAILURES, *_FLAKE_FAILURES), FlakeError)
    if known is not None:
        return known
    return FlakeError(
        f"{ref}: Nix cannot read this flake: {_own_words(log, exit_status)}",
        remedy=f"see what `nix flake metadata {ref}` says",
        detail=_whole(log),
    )


def evaluation_failure(host: HostRef, log: NixLog, exit_status: int) -> NixosError:
    """Explain why a host cannot be evaluated, in the words of the host's author.

    :param host: with an empty name it stands for the flake's hosts as a whole.
    """
    if exit_status < 0:
        return EvalInterrupted(
            f"{_subject(host)}: {_killed(exit_status)} during evaluation",
            remedy="give the machine more memory (a host takes 1 to 4 GiB), or see who ended it",
            detail=_whole(log),
        )
    known = (
        _recognised(str(host.flake), log, (_NO_HOSTS,), FlakeError)
        or _recognised(_subject(host), log, (*_MACHINE_FAILURES, _PURE, _UNTRACKED), EvalError)
        or _recognised(_subject(host), log, (_UNREACHABLE,), FlakeError)
    )
    if known is not None:
        return known
    message = log.errors[-1] if log.errors else None
    place = f" (at {message.place})" if message is not None and message.place else ""
    attribute = (
        f"{host.installable}.config.system.build.toplevel.drvPath" if host.attr else host.flake
    )
    return EvalError(
        f"{_subject(host)}: Nix cannot evaluate this{place}: {_own_words(log, exit_status)}",
        remedy=f"correct the configuration until `nix eval {attribute}` works; -v shows the whole trace",
        detail=_whole(log),
    )


def build_failure(
    derivation: str, log: NixLog, exit_status: int, *, read_log: Callable[[str], Sequence[str]]
) -> BuildError:
    """Explain why a build failed, with the end of the log of the derivation that failed first.

    :param derivation: what was to be built.
    :param read_log: gives the last lines of a derivation's log from the store.
    """
    known = _recognised(
        derivation_name(derivation), log, (*_MACHINE_FAILURES, _FOREIGN_SYSTEM), _build_error
    )
    if isinstance(known, BuildError):
        return known
    failed = _first_failed(log.errors)
    if exit_status < 0 and not failed:
        return BuildError(
            f"{derivation_name(derivation)}: {_killed(exit_status)} during the build",
            remedy="see who ended it (the kernel's log tells about lack of memory) and run again",
        )
    if not failed:
        return BuildError(
            f"{derivation_name(derivation)}: Nix could not build it: {_own_words(log, exit_status)}",
            remedy=f"see what `nix build {derivation}^*` says",
            derivation=derivation,
            log_tail=tuple(log.plain)[-_SHOWN_LINES:],
        )
    tail = log.log_tail(failed) or tuple(read_log(failed))
    return BuildError(
        f"{derivation_name(failed)} failed to build ({failed}): {_reason(log.errors, failed)}",
        remedy=f"read the whole log with `nix log {failed}`",
        derivation=failed,
        log_tail=tail[-_SHOWN_LINES:],
    )


def no_such_host(host: HostRef, known: Sequence[str]) -> FlakeError:
    """Say that the flake has no such host, and which it has."""
    if not known:
        return FlakeError(
            f"{host}: the nixosConfigurations of this flake are empty",
            remedy="add a host: nixosConfigurations.NAME = nixpkgs.lib.nixosSystem { ... }",
        )
    near = difflib.get_close_matches(host.attr, known, n=1)
    names = ", ".join(known[:_SHOWN_NAMES])
    more = f" and {len(known) - _SHOWN_NAMES} more" if len(known) > _SHOWN_NAMES else ""
    meant = (
        f"did you mean {host.flake}#{near[0]}?"
        if near
        else f"choose one of them: {host.flake}#{known[0]}"
    )
    return FlakeError(f"{host}: no such host; the flake has {names}{more}", remedy=meant)


def no_such_input(flake: FlakeRef, name: str, known: Sequence[str]) -> FlakeError:
    """Say that an input to be overridden does not exist."""
    names = ", ".join(known[:_SHOWN_NAMES]) or "none"
    near = difflib.get_close_matches(name, known, n=1)
    return FlakeError(
        f"{flake}: no input {name!r} to override; the flake's inputs: {names}",
        remedy=f"did you mean {near[0]}?"
        if near
        else "use the name under `inputs` in flake.nix, with / between the names of nested inputs",
    )


def not_a_machine(host: HostRef, problem: str) -> EvalError:
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
    }[problem]
    return EvalError(f"{host}: {says}", remedy=remedy)


def _recognised(
    ref: str, log: NixLog, failures: Sequence[_Known], make: Callable[..., NixosError]
) -> NixosError | None:
    text = "\n".join([*(error.text for error in log.errors), *log.plain])
    for failure in failures:
        error = failure.error(text, ref, make, _whole(log))
        if error is not None:
            return error
    return None


def _build_error(message: str, *, remedy: str, detail: str) -> BuildError:
    return BuildError(message, remedy=remedy, log_tail=detail.splitlines()[-_SHOWN_LINES:])


def _subject(host: HostRef) -> str:
    return str(host) if host.attr else str(host.flake)


def _own_words(log: NixLog, exit_status: int) -> str:
    if log.errors:
        return log.errors[-1].text
    if exit_status < 0:
        return _killed(exit_status)
    last = [line for line in log.plain if line.strip()][-1:]
    return last[0].strip() if last else f"exit status {exit_status} without a message"


def _whole(log: NixLog) -> str:
    return "\n\n".join([*(error.whole for error in log.errors), "\n".join(log.plain)]).strip()


def _killed(exit_status: int) -> str:
    try:
        name = signal.Signals(-exit_status).name
    except ValueError:
        name = f"signal {-exit_status}"
    return f"nix was ended by {name}"


def _first_failed(errors: Sequence[NixMessage]) -> str:
    own = [error for error in errors if "dependenc" not in error.text]
    for words in ("builder for", "Cannot build", "hash mismatch", "while building", "build of"):
        for error in (*own, *errors):
            found = _DERIVATION.search(error.text) if words in error.text else None
            if found:
                return found.group()
    return ""


def _reason(errors: Sequence[NixMessage], derivation: str) -> str:
    text = next(error.text for error in errors if derivation in error.text)
    lines = [line.strip() for line in text.splitlines()]
    said = re.search(
        r"Reason: (.*)|(failed with [^;\n]*|failed due to [^;\n]*)|(hash mismatch[^\n]*)", text
    )
    return (next(filter(None, said.groups())) if said else lines[0]).rstrip(";.")
